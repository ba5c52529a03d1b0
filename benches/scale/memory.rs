//! What a tracked pod costs: the worker's table after a restore and a LIST, beside kube's `reflector<Pod>` after the same
//! LIST. Each in a process of its own, which starts small and ends.

use std::{collections::HashSet, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod as TypedPod;
use kube::core::ObjectList;
use kube_runtime::{
    reflector::{self, store::Writer},
    watcher::Event,
};
use pod_monitor::{
    publish::{changelog, restore::Restored},
    watch::{
        api::PAGE_PODS,
        frame::read_page,
        pod::{Decoded, ResourceVersion},
    },
    worker::{pending::Source, position::Stream, table::Table},
};
use serde::{Deserialize, Serialize};
use testkit::counting;

use crate::{
    pods::{FINISHED, LIST_VERSION, Life, RUNNING},
    told,
};

/// Allocations with pauses between them.
const GIVEN_BACK: usize = 50;

/// Who holds the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub(crate) enum Holder {
    /// The worker's table, of pods that run.
    Running,
    /// The same, of pods whose end was told and that are still there.
    Finished,
    /// kube's `reflector<Pod>`.
    Reflector,
}

/// What one process measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) holder: Holder,
    pub(crate) pods: usize,
    /// Bytes asked for that are held because of the pods.
    pub(crate) held: usize,
    /// The most that was held on the way.
    pub(crate) peak: usize,
    /// How much the process's RSS grew, to the end and at most.
    pub(crate) rss: usize,
    pub(crate) rss_peak: usize,
}

impl Cost {
    pub(crate) fn per_pod(&self) -> f64 {
        self.held as f64 / self.pods as f64
    }

    pub(crate) fn rss_per_pod(&self) -> f64 {
        self.rss as f64 / self.pods as f64
    }
}

/// Measures in a process of its own.
pub(crate) fn measure(holder: Holder, pods: usize) -> Result<Cost> {
    let name = clap::ValueEnum::to_possible_value(&holder).context("a name")?;
    let mut child = Command::new(std::env::current_exe()?);
    let output = child.args(["--child", name.get_name(), "--pods", &pods.to_string()]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the measuring process ended with {}: {said}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The child's half: prints what it measured.
pub(crate) fn child(holder: Holder, pods: usize) -> Result<()> {
    let life = Life::recorded()?;
    let line = if holder == Holder::Finished { FINISHED } else { RUNNING };
    // The page is what both read; its room is theirs before and after.
    let cost = match holder {
        Holder::Running | Holder::Finished => table(&life, line, pods)?,
        Holder::Reflector => reflector(&life, line, pods)?,
    };
    println!("{}", serde_json::to_string(&Cost { holder, pods, ..cost })?);
    Ok(())
}

struct Before {
    held: usize,
    rss: usize,
}

impl Before {
    fn now() -> Result<Self> {
        counting::reset_peak();
        Ok(Self { held: counting::held(), rss: status("VmRSS")? })
    }

    fn cost(&self) -> Result<Cost> {
        // What is free goes back to the system a moment later, when something else is asked for.
        for _ in 0..GIVEN_BACK {
            std::thread::sleep(Duration::from_millis(20));
            drop(std::hint::black_box(vec![0_u8; 1 << 16]));
        }
        let more = |now: usize, before: usize| now.saturating_sub(before);
        Ok(Cost {
            holder: Holder::Running,
            pods: 0,
            held: more(counting::held(), self.held),
            peak: more(counting::peak(), self.held),
            rss: more(status("VmRSS")?, self.rss),
            rss_peak: more(status("VmHWM")?, self.rss),
        })
    }
}

/// A line of /proc/self/status, in bytes.
fn status(field: &str) -> Result<usize> {
    let text = std::fs::read_to_string(Path::new("/proc/self/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("the system says how large we are")?;
    Ok(kib.parse::<usize>()? * 1024)
}

fn table(life: &Life, line: usize, pods: usize) -> Result<Cost> {
    let record = told::record(life, line)?;
    let rules = told::rules();
    let before = Before::now()?;
    let mut table = restored(&record, pods)?;
    let arrived = tokio::time::Instant::now();
    for page in pages(pods) {
        let read = read_page(&life.page(line, page, None)).map_err(anyhow::Error::msg)?;
        for decoded in read.pods {
            let Decoded::Whole(pod) = decoded else { bail!("a pod of the LIST cannot be read") };
            table.observe(0, Box::new(pod), arrived, Source::List);
        }
        // As the worker takes a LIST in: the next page comes when this one has been looked at.
        while table.has_ready() {
            let formed = table.form(told::now(), &rules, &[Some(ResourceVersion::default())]);
            ensure!(formed.batch.events.is_empty() && formed.batch.records.is_empty(), "something was told anew");
            table.committed(formed.in_flight);
        }
    }
    // As the worker does when a LIST is decided.
    pod_monitor::memory::give_back();
    let cost = before.cost()?;
    ensure!(table.len() == pods, "the table tracks {} pods", table.len());
    Ok(cost)
}

/// The table as a restore leaves it.
pub(crate) fn restored(record: &crate::pods::Record, pods: usize) -> Result<Table> {
    let told = read(record, pods)?;
    let from = ResourceVersion(LIST_VERSION - 1);
    let mut table = Table::new(vec![Stream::new("", Some(from))]);
    table.restore(told.told, HashSet::new());
    Ok(table)
}

/// The records as a standby's tail reads them.
pub(crate) fn read(record: &crate::pods::Record, pods: usize) -> Result<Restored> {
    let records = (0..pods).map(|n| {
        let (key, mut value) = (format!("pod/{}", crate::pods::uid(n)), String::new());
        record.write(&mut value, n);
        changelog::decode(Some(key.as_bytes()), Some(value.as_bytes()))
    });
    let restored = Restored::of(records);
    ensure!(restored.told.len() == pods && restored.unreadable.is_empty(), "not records of pods");
    Ok(restored)
}

fn reflector(life: &Life, line: usize, pods: usize) -> Result<Cost> {
    let before = Before::now()?;
    let (store, mut writer): (_, Writer<TypedPod>) = reflector::store();
    writer.apply_watcher_event(&Event::Init);
    for page in pages(pods) {
        let list: ObjectList<TypedPod> = serde_json::from_str(&life.page(line, page, None))?;
        for pod in list.items {
            writer.apply_watcher_event(&Event::InitApply(pod));
        }
    }
    writer.apply_watcher_event(&Event::InitDone);
    let cost = before.cost()?;
    ensure!(store.len() == pods, "the reflector holds {} pods", store.len());
    Ok(cost)
}

fn pages(pods: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let page = PAGE_PODS as usize;
    (0..pods).step_by(page).map(move |first| first..(first + page).min(pods))
}
