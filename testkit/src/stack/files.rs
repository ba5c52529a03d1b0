//! The configuration of each component, as text. Pure, but for the certificates, which openssl makes.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use super::authority::CURVE;
use super::process::checked;

/// Where containerd listens, inside.
pub(crate) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// What every broker's Java is told: no files shared through /tmp (pids repeat between stacks).
pub(crate) const JAVA_FLAGS: &[&str] = &[
    "-XX:-UsePerfData",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
];
/// For tests: small heap, cheap start, and code that is never compiled for speed.
pub(crate) const JAVA_QUICK: &[&str] = &["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
/// For measurements: what Kafka's own kafka-server-start.sh and kafka-run-class.sh (4.1) say.
pub(crate) const JAVA_SHIPPED: &[&str] = &[
    "-Xms1G",
    "-Xmx1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
];

/// Listeners that are advertised at the machine's end of the stack's network, where a test's proxy can cut them off: a
/// client is told where to connect, so a proxy in front of the usual one would be left out after the first answer.
pub(crate) const CUT_PORTS: [u16; 3] = [9094, 9095, 9096];

/// The listener with TLS to which clients log in by name and password (SCRAM-SHA-512).
pub(crate) const SCRAM_PORT: u16 = 9097;
/// The listener with TLS to which clients show a certificate; its CN is who they are.
pub(crate) const MTLS_PORT: u16 = 9098;

/// The broker's certificate and key, in the directory of its authority.
pub(crate) const KEY_STORE: &str = "broker.pem";

/// What listeners with TLS need, beside being listed, and rights: whoever comes in by another listener may do anything.
pub(crate) fn kafka_security(pki: &Path) -> String {
    let (pki, scram) = (pki.display(), "listener.name.scram");
    // Clients must show their password again and again: one that was changed is found out within seconds.
    format!(
        "ssl.keystore.type=PEM\n\
         ssl.keystore.location={pki}/{KEY_STORE}\n\
         ssl.truststore.type=PEM\n\
         ssl.truststore.location={pki}/ca.crt\n\
         ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/,DEFAULT\n\
         listener.name.mtls.ssl.client.auth=required\n\
         {scram}.sasl.enabled.mechanisms=SCRAM-SHA-512\n\
         {scram}.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
         {scram}.scram-sha-512.connections.max.reauth.ms=5000\n\
         authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
         super.users=User:ANONYMOUS\n"
    )
}

/// The broker's and controller's configuration. `address` is the one advertised to clients, `host` the machine's; with
/// the directory of an authority, there are listeners with TLS too.
pub(crate) fn kafka_properties(address: &str, host: &str, data: &Path, pki: Option<&Path>) -> String {
    let data = data.display();
    let (mut listen, mut advertise, mut map) = (String::new(), String::new(), String::new());
    for port in CUT_PORTS {
        listen += &format!(",CUT{port}://{address}:{port}");
        advertise += &format!(",CUT{port}://{host}:{port}");
        map += &format!(",CUT{port}:PLAINTEXT");
    }
    if pki.is_some() {
        let tls = format!(",SCRAM://{address}:{SCRAM_PORT},MTLS://{address}:{MTLS_PORT}");
        listen += &tls;
        advertise += &tls;
        map += ",SCRAM:SASL_SSL,MTLS:SSL";
    }
    let security = pki.map(kafka_security).unwrap_or_default();
    // Few partitions in the internal topics: each is created and loaded while the first client waits.
    // Transaction timeouts keep their defaults: tests of hanging transactions depend on them.
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:9093\n\
         listeners=PLAINTEXT://{address}:9092,CONTROLLER://127.0.0.1:9093{listen}\n\
         advertised.listeners=PLAINTEXT://{address}:9092{advertise}\n\
         controller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=PLAINTEXT\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{map}\n\
         log.dirs={data}\n\
         auto.create.topics.enable=false\n\
         num.partitions=1\n\
         group.initial.rebalance.delay.ms=0\n\
         offsets.topic.num.partitions=4\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.num.partitions=4\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         share.coordinator.state.topic.num.partitions=1\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         {security}"
    )
}

/// Admin access with a verified certificate. JSON is YAML too.
pub(crate) fn kubeconfig(server: &str, ca: &str, token: &str) -> Result<String> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "stack", "cluster": { "server": server, "certificate-authority-data": base64(ca.as_bytes()) } }],
        "users": [{ "name": "admin", "user": { "token": token } }],
        "contexts": [{ "name": "stack", "context": { "cluster": "stack", "user": "admin" } }],
        "current-context": "stack",
    });
    Ok(serde_json::to_string_pretty(&config)?)
}

/// The taint of every node but the first: only pods that ask for such a node come there, or bind to it by name. Other
/// tests on the same stack neither expect their pods on a node that goes again nor have their images there.
pub const NODE_TAINT: &str = "pod-monitor.test/further-node";

/// The kubelet's configuration. `address` is its node's, for a machine may be several nodes.
pub(crate) fn kubelet(address: &str, pod_cidr: &str, tainted: bool) -> Result<String> {
    let taint = json!({ "key": NODE_TAINT, "effect": "NoSchedule" });
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        // Machines with cgroup version 1 are still about; this Kubernetes refuses them by default.
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "failSwapOn": false,
        "podCIDR": pod_cidr,
        "resolvConf": "",
        "enforceNodeAllocatable": [],
        "evictionHard": { "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
        "address": address,
        "port": 10250,
        "healthzPort": 0,
        "registerWithTaints": if tainted { vec![taint] } else { Vec::new() },
        "imageGCHighThresholdPercent": 100,
        "featureGates": { "PodLogsQuerySplitStreams": true },
        "maxPods": 200,
        // A test creates pods in bursts; the defaults (5 per second) are for shared API servers.
        "registryPullQPS": 0,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
    });
    Ok(serde_json::to_string_pretty(&config)?)
}

/// containerd's configuration. `run` is the stack's directory, `bin` has runc.
pub(crate) fn containerd(run: &Path, bin: &Path) -> String {
    let (run, bin) = (run.display(), bin.display());
    // restrict_oom_score_adj: without CAP_SYS_RESOURCE (as on many CI machines) every sandbox would fail.
    format!(
        "version = 3\n\
         root = '{run}/containerd'\n\
         state = '/run/containerd'\n\
         [grpc]\n  address = '{CONTAINERD_SOCKET}'\n\
         [plugins.'io.containerd.cri.v1.images'.pinned_images]\n  sandbox = 'localhost/pause:1'\n\
         [plugins.'io.containerd.cri.v1.runtime']\n  restrict_oom_score_adj = true\n\
         [plugins.'io.containerd.cri.v1.runtime'.cni]\n  bin_dirs = ['/usr/lib/cni']\n  conf_dir = '{run}/cni'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n  runtime_type = 'io.containerd.runc.v2'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n  \
         SystemdCgroup = false\n  BinaryName = '{bin}/runc'\n"
    )
}

/// The pods' network: one bridge a node, no way out of the stack.
pub(crate) fn pod_network(bridge: &str, pod_cidr: &str) -> Result<String> {
    let config = json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge", "bridge": bridge, "isGateway": true, "ipMasq": false, "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{ "subnet": pod_cidr }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    });
    Ok(serde_json::to_string_pretty(&config)?)
}

/// Makes the stack's own CA, the API server's certificate and the service account key in `pki`.
///
/// The certificate is good for `address`, for 127.0.0.1 and for the service address 10.96.0.1, so that
/// clients outside, components inside and pods all verify it with `ca.crt`.
pub(crate) fn certificates(pki: &Path, address: &str) -> Result<()> {
    fs::create_dir_all(pki)?;
    let names = "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost";
    fs::write(
        pki.join("server.ext"),
        format!(
            "subjectAltName={names},IP:{address},IP:127.0.0.1,IP:10.96.0.1\n\
             basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
             extendedKeyUsage=serverAuth,clientAuth\n"
        ),
    )?;
    let openssl = |arguments: &[&[&str]]| checked(Command::new("openssl").args(arguments.concat()).current_dir(pki));
    let ca: &[&str] = &["-keyout", "ca.key", "-out", "ca.crt", "-days", "365", "-subj", "/CN=pod-monitor-test-ca"];
    let ca_usage: &[&str] = &["-addext", "keyUsage=critical,keyCertSign,cRLSign"];
    openssl(&[&["req", "-x509"], &CURVE, ca, ca_usage]).context("make the CA")?;
    // The API server shows the same certificate to the kubelet, which asks for none.
    let request: &[&str] =
        &["-keyout", "apiserver.key", "-out", "apiserver.csr", "-subj", "/O=system:masters/CN=kube-apiserver"];
    openssl(&[&["req"], &CURVE, request]).context("make the API server's key")?;
    let sign: &[&str] = &["-req", "-in", "apiserver.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"];
    openssl(&[&["x509"], sign, &["-out", "apiserver.crt", "-days", "365", "-extfile", "server.ext"]])
        .context("sign the API server's certificate")?;
    openssl(&[&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "sa.key"]])
        .context("make the service account key")?;
    openssl(&[&["ec", "-in", "sa.key", "-pubout", "-out", "sa.pub"]]).context("publish the service account key")?;
    Ok(())
}

/// Standard base64, padded.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().enumerate().fold(0_u32, |group, (i, byte)| group | u32::from(*byte) << (16 - 8 * i));
        for i in 0..4 {
            let digit = ALPHABET[(group >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standard_one() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("\u{ff}?", "w78/")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded, "{plain}");
        }
    }
}
