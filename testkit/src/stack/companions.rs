//! Processes beside a stack that end with it, though they run outside its namespaces: a monitor that the demo leaves.
//!
//! Only [`super::cleanup::down`] ends them: a stack that dies otherwise leaves them, and they end themselves for want
//! of servers or are ended by hand.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    process::{ProcessId, Signal},
    readiness::until,
};

const FILE: &str = "companions";

/// Time to end in order, before it is ended the hard way.
const GRACE: Duration = Duration::from_secs(5);

/// Lets a process end with the stack of this run directory.
///
/// # Errors
/// When the run directory is gone.
pub fn add(run: &Path, process: ProcessId) -> Result<()> {
    let mut file = File::options().create(true).append(true).open(run.join(FILE)).context("record a companion")?;
    writeln!(file, "{}", serde_json::to_string(&process)?).context("record a companion")
}

/// Ends all of them, while their servers still answer.
pub(crate) fn end(run: &Path) -> Result<()> {
    let lines = fs::read_to_string(run.join(FILE)).unwrap_or_default();
    for line in lines.lines() {
        let process: ProcessId = serde_json::from_str(line).context("read a companion's record")?;
        if process.signal(Signal::TERM)?
            && until("a companion's end", GRACE, || Ok((!process.is_alive()).then_some(()))).is_err()
        {
            process.signal(Signal::KILL)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn companions_end_with_the_stack_and_no_other_process_does() {
        let run = std::env::temp_dir().join(format!("testkit-companions-{}", std::process::id()));
        fs::create_dir_all(&run).unwrap();
        end(&run).unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = ProcessId::of(child.id().cast_signed()).unwrap();
        let stranger = ProcessId { start_time: 1, ..ProcessId::own().unwrap() };
        add(&run, process).unwrap();
        add(&run, stranger).unwrap();
        end(&run).unwrap();
        assert!(!process.is_alive());
        child.wait().unwrap();
        fs::remove_dir_all(run).unwrap();
    }
}
