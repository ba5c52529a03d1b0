//! An API server that tests may break, with a store that can be set back.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context, Result};
use testkit::stack::{Component, Endpoints, Options, Profile, Signal, Stack};
use tokio::{
    sync::{Mutex, MutexGuard},
    task::spawn_blocking,
};

use crate::support::Bench;

/// An API server that these tests may break, one after the other. It ends with this process.
pub(crate) struct Breakable {
    stack: &'static Stack,
    _turn: MutexGuard<'static, ()>,
}

impl Breakable {
    pub(crate) async fn take() -> Result<Self> {
        static TURN: Mutex<()> = Mutex::const_new(());
        static STACK: OnceLock<Stack> = OnceLock::new();
        let turn = TURN.lock().await;
        let boot = || STACK.get_or_init(|| Stack::boot(Options::new(Profile::ApiServer)).expect("boot an API server"));
        Ok(Self { stack: spawn_blocking(boot).await?, _turn: turn })
    }

    /// Its API server, and the broker of the stack that the environment names.
    pub(crate) async fn bench(&self, test: &str) -> Result<Bench> {
        let kafka = Endpoints::from_env()?.kafka;
        Bench::on(Endpoints { kafka, ..self.stack.endpoints().clone() }, test).await
    }

    pub(crate) async fn kill(&self) -> Result<()> {
        let stack = self.stack;
        spawn_blocking(|| stack.kill(Component::KubeApiserver, Signal::KILL)).await?
    }

    pub(crate) async fn restart(&self) -> Result<()> {
        let stack = self.stack;
        spawn_blocking(|| stack.restart(Component::KubeApiserver)).await?
    }

    /// Starts it anew with these flags after its own.
    pub(crate) async fn restart_with(&self, flags: &'static [&'static str]) -> Result<()> {
        let stack = self.stack;
        spawn_blocking(move || stack.restart_with(Component::KubeApiserver, flags)).await?
    }

    /// Takes a backup of the store, as of a moment at which etcd is down.
    pub(crate) async fn back_up(&self) -> Result<Backup> {
        let stack = self.stack;
        spawn_blocking(|| {
            let store = stack.endpoints().run_dir.join("etcd");
            let backup = Backup(store.with_extension("backup"));
            stack.kill(Component::Etcd, Signal::KILL)?;
            replace(&store, &backup.0)?;
            stack.start_again(Component::Etcd)?;
            // It answers again once it has found its store.
            stack.restart(Component::KubeApiserver)?;
            Ok(backup)
        })
        .await?
    }

    /// Ends everything, puts the backup in the place of the store, and starts again.
    pub(crate) async fn restore(&self, backup: Backup) -> Result<()> {
        let stack = self.stack;
        spawn_blocking(move || {
            stack.kill(Component::KubeApiserver, Signal::KILL)?;
            stack.kill(Component::Etcd, Signal::KILL)?;
            replace(&backup.0, &stack.endpoints().run_dir.join("etcd"))?;
            stack.start_again(Component::Etcd)?;
            stack.restart(Component::KubeApiserver)
        })
        .await?
    }
}

/// A copy of a store.
pub(crate) struct Backup(PathBuf);

/// Makes `to` a copy of `from`.
fn replace(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("remove {}", to.display()))?;
    }
    copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        return fs::read_dir(from)?.try_for_each(|entry| entry.and_then(|e| copy(&e.path(), &to.join(e.file_name()))));
    }
    fs::copy(from, to).map(drop)
}
