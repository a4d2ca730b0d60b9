//! The control plane: its certificates, its programs, and kubectl.

use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::node::{Node, pod_range, said, until};
use super::programs;
use super::sandbox::{GATEWAY, Place};

/// Where Services have their addresses; the first is the API server's.
const SERVICES: &str = "10.96.0.0/16";
/// Where all pods have theirs.
const PODS: &str = "10.240.0.0/16";

/// etcd, API server, controller manager and scheduler, and the nodes.
pub(super) struct Cluster {
    pub(super) nodes: Vec<Node>,
    plane: Plane,
}

struct Plane {
    folder: PathBuf,
    programs: PathBuf,
    children: RefCell<Vec<(String, Child)>>,
}

impl Cluster {
    /// Starts all of it, and waits until every node is Ready.
    pub(super) fn begin(place: &Place, nodes: u8) -> Result<Cluster> {
        let folder = place.folder.join("plane");
        fs::create_dir_all(&folder)?;
        let plane = Plane { folder, programs: programs::place(place.release)?, children: RefCell::default() };
        plane.certificates()?;
        plane.start()?;
        let mut cluster = Cluster { nodes: Vec::new(), plane };
        for number in 1..=nodes {
            cluster.join(place, number)?;
        }
        cluster.kubectl(&["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=120s"])?;
        Ok(cluster)
    }

    fn join(&mut self, place: &Place, number: u8) -> Result<()> {
        let node = Node::make(place, number)?;
        // The network between the nodes has routes to these ranges.
        let object = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node.name, "labels": { "kubernetes.io/hostname": node.name } },
            "spec": { "podCIDR": pod_range(number), "podCIDRs": [pod_range(number)] } });
        self.apply(&object)?;
        let user = format!("system:node:{}", node.name);
        self.plane.kubeconfig(&node.name, &user, "system:nodes")?;
        node.start_daemon()?;
        self.start_kubelet(&node)?;
        let proxy = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "nftables",
            "clientConnection": { "kubeconfig": self.plane.file("kube-proxy.conf") }, "clusterCIDR": PODS, "hostnameOverride": node.name,
            "healthzBindAddress": format!("{}:10256", node.address), "metricsBindAddress": format!("{}:10249", node.address),
            // The tables of connections are the machine's.
            "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" }
        });
        fs::write(node.folder.join("proxy.json"), proxy.to_string())?;
        let mut command = node.inside(self.plane.programs.join("kube-proxy"));
        command.arg("--config").arg(node.folder.join("proxy.json")).args(["--v", "2"]);
        self.plane.spawn(&format!("kube-proxy-{number}"), command)?;
        self.nodes.push(node);
        Ok(())
    }

    /// Starts the kubelet of a node, which its certificate names.
    pub(super) fn start_kubelet(&self, node: &Node) -> Result<()> {
        let config = json!({
            "authentication": {
                "anonymous": { "enabled": false }, "webhook": { "enabled": true }, "x509": { "clientCAFile": self.plane.file("ca.crt") }
            },
            "authorization": { "mode": "Webhook" },
            // Told by the API server.
            "podCIDR": "",
            "staticPodPath": ""
        });
        node.start_kubelet_of(&self.plane.file(&format!("{}.conf", node.name)), &config)
    }

    /// kubectl as the administrator, and its standard output.
    pub(super) fn kubectl(&self, args: &[&str]) -> Result<String> {
        said(&mut self.plane.kubectl(args))
    }

    /// kubectl, to be run in another way.
    pub(super) fn kubectl_command(&self, args: &[&str]) -> Command {
        self.plane.kubectl(args)
    }

    /// kubectl as somebody would type it.
    pub(super) fn kubectl_line(&self) -> String {
        format!(
            "{} --kubeconfig {}",
            self.plane.programs.join("kubectl").display(),
            self.plane.file("admin.conf").display()
        )
    }

    /// Creates or changes an object.
    pub(super) fn apply(&self, object: &Value) -> Result<()> {
        let mut command = self.plane.kubectl(&["apply", "--filename", "-"]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("kubectl")?;
        child.stdin.take().context("a pipe")?.write_all(object.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "kubectl apply: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// An object as it is now.
    pub(super) fn get(&self, what: &[&str]) -> Result<Value> {
        let args: Vec<&str> = ["get", "--output", "json"].iter().chain(what).copied().collect();
        Ok(serde_json::from_str(&self.kubectl(&args)?)?)
    }

    /// What runs of the control plane; an error where something of it has ended.
    pub(super) fn all_run(&self) -> Result<()> {
        for (name, child) in self.plane.children.borrow_mut().iter_mut() {
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended with {status}; see {}", self.plane.folder.display());
            }
        }
        Ok(())
    }
}

impl Plane {
    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn openssl(&self, words: &str) -> Result<()> {
        said(Command::new("openssl").args(words.split(' ')).current_dir(&self.folder)).map(drop)
    }

    /// The authority, the API server's certificate, and a configuration for each who speaks with it.
    fn certificates(&self) -> Result<()> {
        self.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=cluster -keyout ca.key -out ca.crt")?;
        self.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out accounts.key")?;
        let names = format!("subjectAltName=IP:{GATEWAY},IP:10.96.0.1,DNS:kubernetes.default.svc");
        self.certificate("apiserver", "/CN=kube-apiserver", &names)?;
        self.certificate(
            "to-kubelets",
            "/O=system:masters/CN=kube-apiserver",
            "extendedKeyUsage=clientAuth",
        )?;
        self.kubeconfig("admin", "admin", "system:masters")?;
        for name in ["kube-controller-manager", "kube-scheduler", "kube-proxy"] {
            self.kubeconfig(name, &format!("system:{name}"), "cluster")?;
        }
        Ok(())
    }

    fn certificate(&self, name: &str, subject: &str, extension: &str) -> Result<()> {
        fs::write(self.file(&format!("{name}.ext")), extension)?;
        self.openssl(&format!("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj {subject} -keyout {name}.key -out {name}.csr"))?;
        self.openssl(&format!("x509 -req -days 2 -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile {name}.ext -out {name}.crt"))
    }

    /// `NAME.conf`, for this user of this group.
    fn kubeconfig(&self, name: &str, user: &str, group: &str) -> Result<()> {
        self.certificate(name, &format!("/O={group}/CN={user}"), "extendedKeyUsage=clientAuth")?;
        let path = |end: &str| self.file(&format!("{name}.{end}"));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": format!("https://{GATEWAY}:6443"), "certificate-authority": self.file("ca.crt") } }],
            "users": [{ "name": "u", "user": { "client-certificate": path("crt"), "client-key": path("key") } }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }]
        });
        Ok(fs::write(path("conf"), config.to_string())?)
    }

    fn spawn(&self, name: &str, mut command: Command) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.file(&format!("{name}.log")))?;
        let child = command.stdout(log.try_clone()?).stderr(log).stdin(Stdio::null()).spawn();
        self.children.borrow_mut().push((name.to_owned(), child.with_context(|| name.to_owned())?));
        Ok(())
    }

    /// Starts a program with `--option value` lines; `@` stands for the folder.
    fn program(&self, name: &str, options: &str) -> Result<()> {
        let mut command = Command::new(self.programs.join(name));
        let folder = self.folder.display().to_string();
        command.args(options.split_whitespace().map(|word| word.replace('@', &folder)));
        self.spawn(name, command)
    }

    fn start(&self) -> Result<()> {
        self.program(
            "etcd",
            "--data-dir @/etcd --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
             --listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync",
        )?;
        self.program(
            "kube-apiserver",
            &format!(
                "--etcd-servers http://127.0.0.1:2379 --advertise-address {GATEWAY} --bind-address {GATEWAY} --secure-port 6443 \
                 --tls-cert-file @/apiserver.crt --tls-private-key-file @/apiserver.key --client-ca-file @/ca.crt \
                 --kubelet-client-certificate @/to-kubelets.crt --kubelet-client-key @/to-kubelets.key \
                 --kubelet-preferred-address-types InternalIP --authorization-mode Node,RBAC --service-cluster-ip-range {SERVICES} \
                 --service-account-issuer https://cluster.test --service-account-key-file @/accounts.key \
                 --service-account-signing-key-file @/accounts.key --allow-privileged=true"
            ),
        )?;
        until("the API server", Duration::from_secs(120), || {
            let ended = self
                .children
                .borrow_mut()
                .iter_mut()
                .find_map(|(name, child)| Some((name.clone(), child.try_wait().ok()??)));
            if let Some((name, status)) = ended {
                bail!("{name} ended with {status}; see {}", self.folder.display());
            }
            Ok(said(&mut self.kubectl(&["get", "--raw", "/readyz"])).ok())
        })?;
        self.program(
            "kube-controller-manager",
            &format!(
                "--kubeconfig @/kube-controller-manager.conf --service-account-private-key-file @/accounts.key --root-ca-file @/ca.crt \
                 --cluster-cidr {PODS} --service-cluster-ip-range {SERVICES} --allocate-node-cidrs=false --leader-elect=false \
                 --use-service-account-credentials=true --controllers *"
            ),
        )?;
        self.program("kube-scheduler", "--kubeconfig @/kube-scheduler.conf --leader-elect=false")
    }

    fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("kubectl"));
        command.arg("--kubeconfig").arg(self.file("admin.conf")).args(args).stdin(Stdio::null());
        // Its cache of what the server serves, and nothing else, would go there.
        command.env("HOME", Path::new("/run"));
        command
    }
}
