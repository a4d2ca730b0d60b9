//! Groups that systemd makes: transient slices and scopes, whose limits it is told, so that it does not undo them.
//!
//! A unit is named by the path of its group ([`names`]), so that nothing but the path has to be remembered. A connection is made for each
//! operation and lasts no longer: neither the daemon nor a shim depends on the bus while nothing is asked of it.

mod bus;
mod error;
mod identity;
mod names;
mod properties;

use std::time::{Duration, Instant};

use dbus::{Value, Writer};
use oci_spec::runtime::LinuxResources;

pub use error::SystemdError;
pub use identity::manager;
pub(crate) use names::Unit;
pub use names::{Manager, place, place_of, slice_path};

use crate::host::Mode;
use bus::Connection;

/// How long systemd may take for one operation, its job included: as long as its own tools wait, and a little more.
const PATIENCE: Duration = Duration::from_secs(40);

/// How long a unit of the same name may take to be forgotten after its end.
const FORGETTING: Duration = Duration::from_secs(1);

const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const UNKNOWN: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// Whether systemd is the init of this machine.
pub fn runs() -> bool {
    bus::is_init()
}

/// Has systemd begin `unit` with `processes` in it, limited by `resources`, its group delegated to us. A slice that exists is only given the
/// limits; a scope cannot exist, nor be without processes.
pub(crate) fn start(
    unit: Unit<'_>,
    mode: Mode,
    resources: &LinuxResources,
    processes: &[i32],
) -> Result<(), SystemdError> {
    let mut connection = connect(unit.manager)?;
    let limits = properties::limits(resources, mode);
    let mut all = properties::of_transient(unit, processes);
    all.extend(limits.iter().cloned());
    let body = started(unit.name, &properties::known(all, connection.version));
    let begun = Instant::now();
    loop {
        match connection.job("start", unit.name, ("StartTransientUnit", "ssa(sv)a(sa(sv))"), &body) {
            Err(error) if error.is(EXISTS) && unit.is_slice() => return tell(&mut connection, unit, limits),
            // Its namesake has just ended.
            Err(error) if error.is(EXISTS) && begun.elapsed() < FORGETTING => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

/// Tells systemd the limits that the group of `unit` has from now on. Systemd writes what it is told to the group's files, in its own
/// rounding. What it does not know as a unit is none of its business.
pub(crate) fn limit(unit: Unit<'_>, mode: Mode, resources: &LinuxResources) -> Result<(), SystemdError> {
    let limits = properties::limits(resources, mode);
    if limits.is_empty() {
        return Ok(());
    }
    match tell(&mut connect(unit.manager)?, unit, limits) {
        Err(error) if error.is(UNKNOWN) => Ok(()),
        other => other,
    }
}

/// Has systemd end `unit`, which kills what is still in it. That there is no such unit is fine.
pub(crate) fn stop(unit: Unit<'_>) -> Result<(), SystemdError> {
    let mut body = Writer::new();
    body.text(unit.name);
    body.text("replace");
    match connect(unit.manager)?.job("stop", unit.name, ("StopUnit", "ss"), &body.finish()) {
        Err(error) if error.is(UNKNOWN) => Ok(()),
        other => other,
    }
}

fn connect(manager: Manager) -> Result<Connection, SystemdError> {
    if !runs() {
        return Err(SystemdError::Absent);
    }
    Connection::open(manager, PATIENCE)
}

fn tell(connection: &mut Connection, unit: Unit<'_>, limits: Vec<Property>) -> Result<(), SystemdError> {
    let limits = properties::known(limits, connection.version);
    let mut body = Writer::new();
    body.text(unit.name);
    // Only until the machine is started anew.
    body.u32(u32::from(true));
    written(&limits, &mut body);
    connection.call("set limits of", unit.name, ("SetUnitProperties", "sba(sv)"), &body.finish())
}

/// A property of a unit: its name, as systemd's bus interface spells it, and what it is set to.
pub(crate) type Property = (&'static str, Value);

fn started(name: &str, properties: &[Property]) -> Vec<u8> {
    let mut body = Writer::new();
    body.text(name);
    // A job that is in the way belongs to a unit of the same name: that is nobody else's.
    body.text("replace");
    written(properties, &mut body);
    // No units beside it.
    body.array(8, |_| ());
    body.finish()
}

fn written(properties: &[Property], to: &mut Writer) {
    to.array(8, |to| {
        for (name, value) in properties {
            to.align(8);
            to.text(name);
            value.write(to);
        }
    });
}
