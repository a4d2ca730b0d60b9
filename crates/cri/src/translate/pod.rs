//! `PodSandboxConfig` to [`PodRequest`].

use model::request::{Dns, PodName, PodRequest, PortMapping, Protocol};

use super::namespace::{self, Of};
use super::{BadField, enumeration, resources, security, text};
use crate::runtime_v1 as proto;

/// The most port mappings and sysctls that are taken.
const MAX_ENTRIES: usize = 4096;

/// The pod that is asked for.
pub fn from_proto(config: Option<proto::PodSandboxConfig>, handler: String) -> Result<PodRequest, BadField> {
    let config = config.ok_or_else(|| BadField::missing("config"))?;
    let mut request = config_from_proto(config).map_err(|bad| bad.within("config"))?;
    request.handler = text::name("runtime_handler", handler)?;
    Ok(request)
}

/// Pod metadata.
pub fn name_to_proto(name: &PodName) -> proto::PodSandboxMetadata {
    proto::PodSandboxMetadata {
        name: name.name.clone(),
        uid: name.uid.clone(),
        namespace: name.namespace.clone(),
        attempt: name.attempt,
    }
}

/// A pod's configuration, which also comes along with requests about its containers.
pub fn config_from_proto(config: proto::PodSandboxConfig) -> Result<PodRequest, BadField> {
    let metadata = config.metadata.ok_or_else(|| BadField::missing("metadata"))?;
    let request = PodRequest {
        name: name_from_proto(metadata).map_err(|bad| bad.within("metadata"))?,
        hostname: hostname(config.hostname)?,
        log_directory: text::host_path("log_directory", config.log_directory)?,
        dns: config.dns_config.map(dns).transpose()?,
        port_mappings: port_mappings(config.port_mappings)?,
        labels: text::map("labels", config.labels)?,
        annotations: text::map("annotations", config.annotations)?,
        ..Default::default()
    };
    linux(request, config.linux.unwrap_or_default()).map_err(|bad| bad.within("linux"))
}

fn name_from_proto(metadata: proto::PodSandboxMetadata) -> Result<PodName, BadField> {
    Ok(PodName {
        namespace: text::name("namespace", metadata.namespace)?,
        name: text::required_name("name", metadata.name)?,
        uid: text::name("uid", metadata.uid)?,
        attempt: metadata.attempt,
    })
}

fn hostname(hostname: String) -> Result<String, BadField> {
    spec::hostname::check(&hostname).map_err(|why| BadField::new("hostname", why))?;
    Ok(hostname)
}

fn dns(config: proto::DnsConfig) -> Result<Dns, BadField> {
    let dns = Dns { servers: config.servers, searches: config.searches, options: config.options };
    // What cannot be written as a resolv.conf is refused now; the error names list and entry.
    spec::resolv_conf::text(&dns).map_err(|why| BadField::new("dns_config", why))?;
    Ok(dns)
}

fn port_mappings(list: Vec<proto::PortMapping>) -> Result<Vec<PortMapping>, BadField> {
    if list.len() > MAX_ENTRIES {
        return Err(BadField::new("port_mappings", format!("it has {} entries", list.len())));
    }
    let one = |(index, mapping)| {
        port_mapping(mapping).map_err(|bad: BadField| bad.within(&format!("port_mappings[{index}]")))
    };
    list.into_iter().enumerate().map(one).collect()
}

fn port_mapping(mapping: proto::PortMapping) -> Result<PortMapping, BadField> {
    let container_port = port("container_port", mapping.container_port)?;
    let host_port = port("host_port", mapping.host_port)?;
    if host_port != 0 && container_port == 0 {
        return Err(BadField::new("container_port", format!("host_port {host_port} leads to no port")));
    }
    let host_ip = match mapping.host_ip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| {
            BadField::new("host_ip", format!("{:?} is not an IP address", text::beginning(text)))
        })?),
    };
    Ok(PortMapping {
        protocol: match enumeration("protocol", mapping.protocol)? {
            proto::Protocol::Tcp => Protocol::Tcp,
            proto::Protocol::Udp => Protocol::Udp,
            proto::Protocol::Sctp => Protocol::Sctp,
        },
        container_port,
        host_port,
        host_ip,
    })
}

fn port(field: &str, port: i32) -> Result<u16, BadField> {
    u16::try_from(port)
        .map_err(|_| BadField::new(field, format!("{port} is not a port, which are 0 to 65535")))
}

fn linux(mut request: PodRequest, linux: proto::LinuxPodSandboxConfig) -> Result<PodRequest, BadField> {
    if linux.sysctls.len() > MAX_ENTRIES {
        return Err(BadField::new("sysctls", format!("it has {} entries", linux.sysctls.len())));
    }
    let limits = |field: &'static str, asked: Option<proto::LinuxContainerResources>| {
        asked.map(resources::from_proto).transpose().map_err(|bad| bad.within(field))
    };
    request.cgroup_parent = cgroup_parent(linux.cgroup_parent)?;
    request.overhead = limits("overhead", linux.overhead)?;
    request.resources = limits("resources", linux.resources)?;
    request.sysctls = linux.sysctls;
    let context = linux.security_context.unwrap_or_default();
    let mut request = security_context(request, context).map_err(|bad| bad.within("security_context"))?;
    let checked = spec::sysctl::of_pod(&request).map(drop);
    checked.map_err(|why| BadField::new("sysctls", why))?;
    request.hostname.shrink_to_fit();
    Ok(request)
}

fn security_context(
    mut request: PodRequest,
    context: proto::LinuxSandboxSecurityContext,
) -> Result<PodRequest, BadField> {
    request.namespaces = namespace::from_proto(Of::Pod, context.namespace_options)
        .map_err(|bad| bad.within("namespace_options"))?;
    request.privileged = context.privileged;
    request.selinux = security::selinux(context.selinux_options)?;
    request.user = security::user(
        context.run_as_user,
        context.run_as_group,
        String::new(),
        context.supplemental_groups,
        context.supplemental_groups_policy,
    )?;
    #[allow(deprecated)]
    let old = context.seccomp_profile_path;
    request.seccomp = security::profile("seccomp", context.seccomp, "seccomp_profile_path", &old)?;
    // No process of the pod itself could have it; what cannot be understood is told all the same.
    security::profile("apparmor", context.apparmor, "apparmor", "")?;
    Ok(request)
}

/// A cgroup as the kubelet names it: a path, or a slice of systemd.
fn cgroup_parent(text: String) -> Result<Option<String>, BadField> {
    if text.is_empty() {
        return Ok(None);
    }
    let text = text::bounded_path("cgroup_parent", text)?;
    if text.split('/').any(|part| part == "..") || (!text.starts_with('/') && text.contains('/')) {
        return Err(BadField::new(
            "cgroup_parent",
            format!("{text:?} is neither an absolute path nor a slice"),
        ));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime_v1::{LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata};

    fn config() -> PodSandboxConfig {
        let metadata = PodSandboxMetadata {
            name: "web-0".into(),
            uid: "u1".into(),
            namespace: "shop".into(),
            attempt: 2,
        };
        PodSandboxConfig { metadata: Some(metadata), ..Default::default() }
    }

    fn field(change: impl FnOnce(&mut PodSandboxConfig)) -> String {
        let mut config = config();
        change(&mut config);
        from_proto(Some(config), String::new()).unwrap_err().field
    }

    fn linux_field(change: impl FnOnce(&mut LinuxPodSandboxConfig)) -> String {
        field(|config| change(config.linux.get_or_insert_default()))
    }

    #[test]
    fn a_plain_pod() {
        let pod = from_proto(Some(config()), "kata".into()).unwrap();
        assert_eq!(pod.name.to_string(), "shop/web-0 (uid u1, attempt 2)");
        assert_eq!(pod.handler, "kata");
        assert_eq!(Some(name_to_proto(&pod.name)), config().metadata);
        assert_eq!((pod.dns, pod.log_directory, pod.cgroup_parent), (None, None, None));
    }

    #[test]
    fn every_bad_field_is_named() {
        assert_eq!(from_proto(None, String::new()).unwrap_err().field, "config");
        assert_eq!(from_proto(Some(config()), "a/b".into()).unwrap_err().field, "runtime_handler");
        assert_eq!(field(|config| config.metadata = None), "config.metadata");
        assert_eq!(field(|config| config.metadata = Some(Default::default())), "config.metadata.name");
        let giant = "x".repeat(1 << 20);
        let named = |change: fn(&mut PodSandboxMetadata, String)| {
            let giant = giant.clone();
            field(|config| change(config.metadata.as_mut().unwrap(), giant))
        };
        assert_eq!(named(|metadata, giant| metadata.name = giant), "config.metadata.name");
        assert_eq!(named(|metadata, giant| metadata.namespace = giant), "config.metadata.namespace");
        assert_eq!(named(|metadata, _| metadata.uid = "a\0".into()), "config.metadata.uid");
        assert_eq!(field(|config| config.hostname = "a".repeat(65)), "config.hostname");
        assert_eq!(field(|config| config.hostname = "a\nb".into()), "config.hostname");
        assert_eq!(field(|config| config.log_directory = "var/log".into()), "config.log_directory");
        assert_eq!(field(|config| config.log_directory = "/var/../etc".into()), "config.log_directory");
        assert_eq!(field(|config| config.labels = [(String::new(), String::new())].into()), "config.labels");
        let dns = proto::DnsConfig { servers: vec!["1.1.1.1\nx".into()], ..Default::default() };
        assert_eq!(field(|config| config.dns_config = Some(dns)), "config.dns_config");
    }

    #[test]
    fn ports_are_ports() {
        let of = |container_port, host_port, protocol, host_ip: &str| {
            let mapping = proto::PortMapping { container_port, host_port, protocol, host_ip: host_ip.into() };
            let mut config = config();
            config.port_mappings = vec![Default::default(), mapping];
            from_proto(Some(config), String::new()).map(|pod| pod.port_mappings).map_err(|bad| bad.field)
        };
        let good = of(80, 8080, 1, "::1").unwrap();
        assert_eq!((good[1].protocol, good[1].host_port), (Protocol::Udp, 8080));
        assert!(of(80, 0, 0, "").is_ok());
        let at = |field: &str| Err(format!("config.port_mappings[1].{field}"));
        assert_eq!(of(70000, 80, 0, ""), at("container_port"));
        assert_eq!(of(80, 65536, 0, ""), at("host_port"));
        assert_eq!(of(80, -1, 0, ""), at("host_port"));
        assert_eq!(of(0, 80, 0, ""), at("container_port"));
        assert_eq!(of(80, 80, 3, ""), at("protocol"));
        assert_eq!(of(80, 80, 0, "localhost"), at("host_ip"));
    }

    #[test]
    fn the_linux_part() {
        assert_eq!(linux_field(|linux| linux.cgroup_parent = "/a/../b".into()), "config.linux.cgroup_parent");
        assert_eq!(linux_field(|linux| linux.cgroup_parent = "a/b".into()), "config.linux.cgroup_parent");
        let sysctl = |name: &str| [(name.to_owned(), "1".to_owned())].into();
        assert_eq!(
            linux_field(|linux| linux.sysctls = sysctl("kernel.core_pattern")),
            "config.linux.sysctls"
        );
        let context = |change: fn(&mut proto::LinuxSandboxSecurityContext)| {
            linux_field(|linux| change(linux.security_context.get_or_insert_default()))
        };
        let bad_namespace = context(|context| context.namespace_options.get_or_insert_default().network = 5);
        assert_eq!(bad_namespace, "config.linux.security_context.namespace_options.network");
        let bad_user = context(|context| context.run_as_user = Some(proto::Int64Value { value: -1 }));
        assert_eq!(bad_user, "config.linux.security_context.run_as_user");
        let slice = PodSandboxConfig {
            linux: Some(LinuxPodSandboxConfig { cgroup_parent: "test.slice".into(), ..Default::default() }),
            ..config()
        };
        assert_eq!(
            from_proto(Some(slice), String::new()).unwrap().cgroup_parent.as_deref(),
            Some("test.slice")
        );
    }

    #[test]
    fn sysctls_are_judged_with_the_pods_namespaces() {
        let field = linux_field(|linux| {
            linux.sysctls = [("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into();
            let context = linux.security_context.get_or_insert_default();
            context.namespace_options.get_or_insert_default().network = proto::NamespaceMode::Node.into();
        });
        assert_eq!(field, "config.linux.sysctls");
    }
}
