//! Hostile images and containers: what they try to reach outside of themselves stays as it was.

mod corpus;
mod images;
mod limits;
mod load;
mod rights;
#[path = "../support/mod.rs"]
mod support;

use cri::runtime_v1 as v1;

pub fn security(asked: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    asked.linux.get_or_insert_default().security_context.get_or_insert_default()
}
