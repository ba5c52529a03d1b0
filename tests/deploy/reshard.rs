//! The procedure of deploy/README.md for another number of shards: what it copies from the Deployment, whoever made that,
//! and what the API server makes of it. What `reshard` itself does, tests/system shows.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};
use testkit::clients::installation::{kubectl_blocking, restricted_namespace};
use testkit::stack::Endpoints;

use crate::chart::{REQUIRED, name_of, objects, run, template};

/// What stands in the repository at this path.
fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// What a page has people type below this heading, in the block with these words; for the installation in `namespace`.
fn block(page: &str, heading: &str, words: &str, namespace: &str) -> String {
    let page = read(page);
    let section = page.split(&format!("## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let block = section.split("```console\n").find(|block| block.contains(words)).unwrap();
    let typed = block.split("```").next().unwrap();
    let here = typed.replacen("namespace=pod-monitor ", &format!("namespace={namespace} "), 1);
    assert!(here != typed, "{typed}");
    here
}

/// Output of these lines in a shell, at the root of the repository; nothing may be warned of.
fn typed(lines: &str) -> String {
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("set -eu\n{lines}")]).current_dir(env!("CARGO_MANIFEST_DIR"));
    shell.envs(endpoints().variables().unwrap());
    let (said, warned) = run(&mut shell).unwrap();
    assert_eq!(warned, "", "{said}");
    said
}

/// What the page for "Was anything lost?" has people type, of the installation in this namespace.
pub(crate) fn verified(namespace: &str) -> String {
    typed(&block("docs/handover.md", "Was anything lost?", "deploy/reshard-job.yaml", namespace))
}

/// No image is run here, so that none is built.
fn endpoints() -> Endpoints {
    Endpoints::from_env().unwrap()
}

/// The lines of the third step that make the Job, as they stand there, but on trial.
fn step(namespace: &str) -> String {
    let block = block("deploy/README.md", "Another number of shards", "deploy/reshard-job.yaml |", namespace);
    let (made, rest) = block.split_once(" apply --filename -\n").unwrap();
    assert!(rest.contains("wait --for=condition=complete") && rest.contains(" logs "), "{rest}");
    assert!(made.contains("shards=4\n"), "{made}");
    let here = made.replacen("shards=4\n", "shards=6\n", 1);
    format!("{here} apply --dry-run=server --output json --filename -\n")
}

/// The Job that the procedure makes of what is installed in this namespace, as the API server admits it.
fn job(namespace: &str) -> Value {
    serde_json::from_str(&typed(&step(namespace))).unwrap()
}

/// What the Job shares with the monitor's pods: account, image, mounts, and what is mounted.
fn shared(pod: &Value) -> Value {
    let container = &pod["containers"][0];
    let volumes: Vec<Value> = pod["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|volume| json!([volume["name"], volume["configMap"]["name"], volume["secret"]["secretName"]]))
        .collect();
    json!({
        "account": pod["serviceAccountName"], "image": container["image"], "volumes": volumes,
        "mounts": container["volumeMounts"], "security": [pod["securityContext"], container["securityContext"]],
        "token": pod["automountServiceAccountToken"], "memory": container["resources"]["limits"]["memory"],
    })
}

/// A namespace that enforces Pod Security `restricted`, with these objects; taken away when dropped.
struct Installed {
    name: String,
}

impl Installed {
    /// The objects' own namespace is replaced by this one.
    fn new(form: &str, made: Vec<Value>) -> Self {
        let this = Self { name: format!("reshard-{form}-{}", std::process::id()) };
        let mut items = vec![restricted_namespace(&this.name)];
        for mut object in made {
            object["metadata"]["namespace"] = this.name.clone().into();
            items.push(object);
        }
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.json", this.name));
        fs::write(&file, json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()).unwrap();
        kubectl_blocking(&endpoints(), &["apply", "--filename", &file.display().to_string()]).unwrap();
        this
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Err(error) = kubectl_blocking(&endpoints(), &["delete", "namespace", "--wait=false", &self.name]) {
            eprintln!("{}: not taken away: {error:#}", self.name);
        }
    }
}

/// Those that the Job needs, with no replica.
fn needed(rendered: &str) -> Vec<Value> {
    let kinds = ["Deployment", "ServiceAccount", "ConfigMap"];
    let mut kept = objects(rendered);
    kept.retain(|object| kinds.iter().any(|kind| object["kind"] == *kind));
    kept.iter_mut().filter(|object| object["kind"] == "Deployment").for_each(|object| {
        object["spec"]["replicas"] = 0.into();
    });
    assert_eq!(kept.len(), 3, "{rendered}");
    kept
}

/// Holds the Job to the monitor's pods, and to names that are among these objects.
fn fits(form: &str, made: Vec<Value>) {
    let names: Vec<String> = made.iter().map(name_of).collect();
    let deployment = made.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let monitor = shared(&deployment["spec"]["template"]["spec"]);
    let installed = Installed::new(form, made.clone());
    let job = job(&installed.name);
    let pod = &job["spec"]["template"]["spec"];
    let mut of_job = shared(pod);
    for (kind, name) in
        [("ServiceAccount", &pod["serviceAccountName"]), ("ConfigMap", &pod["volumes"][0]["configMap"]["name"])]
    {
        let name = name.as_str().unwrap();
        assert!(names.iter().any(|made| made.starts_with(&format!("{kind} ")) && made.ends_with(&format!("/{name}"))));
    }
    if monitor["volumes"].as_array().unwrap().len() == 1 {
        // Optional, so that it need not be taken out where there is none.
        assert_eq!(pod["volumes"][1]["secret"]["optional"], true);
        for list in ["volumes", "mounts"] {
            of_job[list].as_array_mut().unwrap().truncate(1);
        }
    }
    assert_eq!(of_job, monitor, "{form}: the Job, and the monitor's pods");
    assert_eq!(
        pod["containers"][0]["args"],
        json!(["reshard", "--config", "/etc/pod-monitor/config.yaml", "--shards=6", "--create-topics"])
    );
    // A killed one is begun anew, by the Job and never beside the old one; a refused one is not.
    assert_eq!((&pod["restartPolicy"], &job["spec"]["podReplacementPolicy"]), (&json!("Never"), &json!("Failed")));
    assert_eq!((&job["spec"]["parallelism"], &job["spec"]["backoffLimit"]), (&json!(1), &json!(6)));
    assert_eq!(job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"], json!([2]));
    // Nobody's traffic goes to it, and `wait` for the replicas' end does not wait for it.
    let selector = &deployment["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"];
    assert_ne!(&job["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"], selector);
}

#[test]
fn the_job_for_another_number_of_shards_fits_what_the_chart_makes() {
    fits("chart", needed(&template(&REQUIRED).unwrap()));
    // Other names for everything.
    let other = [
        "--set=fullnameOverride=pod-monitor",
        "--set=serviceAccount.name=theirs",
        "--set=kafkaSecret.name=brokers",
        "--set=image.repository=registry.example:5000/a/pod-monitor",
        "--set=image.digest=sha256:0000000000000000000000000000000000000000000000000000000000000000",
    ];
    fits("chart-named", needed(&template(&[&REQUIRED[..], &other].concat()).unwrap()));
}

#[test]
fn the_job_for_another_number_of_shards_fits_what_kustomize_makes() {
    let example = format!("{}/deploy/kustomize/overlays/example", env!("CARGO_MANIFEST_DIR"));
    let rendered = kubectl_blocking(&endpoints(), &["kustomize", &example]).unwrap().output;
    fits("kustomize", needed(&rendered));
}

#[test]
fn the_procedure_raises_the_leases_and_gives_both_settings() {
    let page = read("deploy/README.md");
    let section = page.split("## Another number of shards\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let upgrades: Vec<Vec<String>> = section
        .split("```console\n")
        .filter(|block| block.starts_with("helm upgrade"))
        .map(|block| {
            let words = block.split("```").next().unwrap().split_whitespace().collect::<Vec<_>>();
            words.windows(2).filter(|two| two[0] == "--set").map(|two| format!("--set={}", two[1])).collect()
        })
        .collect();
    let rendered: Vec<(Value, Value, Value)> = upgrades
        .iter()
        .map(|values| {
            let values = REQUIRED.into_iter().chain(values.iter().map(String::as_str)).collect::<Vec<_>>();
            let all = objects(&template(&values).unwrap());
            let of = |name: &str| all.iter().find(|object| name_of(object) == name).unwrap().clone();
            let settings = of("ConfigMap pod-monitor/pod-monitor")["data"]["config.yaml"].clone();
            let settings: Value = serde_saphyr::from_str(settings.as_str().unwrap()).unwrap();
            let leases = of("Role pod-monitor/pod-monitor-leases")["rules"][1]["resourceNames"].clone();
            let replicas = of("Deployment pod-monitor/pod-monitor")["spec"]["replicas"].clone();
            (leases, replicas, json!([settings["shards"], settings["generation"]]))
        })
        .collect();
    let four = json!(["pod-monitor-0", "pod-monitor-1", "pod-monitor-2", "pod-monitor-3"]);
    let (before, after) = ((four.clone(), json!(0), json!([null, null])), (four, json!(3), json!([4, 2])));
    assert_eq!(rendered, [before, after], "with the old settings and no replica, then with the new ones");
    for (from, to) in [
        ("docs/resharding.md", "../deploy/README.md#another-number-of-shards"),
        ("deploy/README.md", "../docs/resharding.md"),
    ] {
        assert!(read(from).contains(&format!("]({to})")), "{from} links {to}");
    }
}
