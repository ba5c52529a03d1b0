//! `completions`: prints what a shell needs to complete commands and flags.

use std::{io::Write as _, process::ExitCode};

use clap::{ArgMatches, Args, Command};
use clap_complete::Shell;

pub(super) const EXAMPLES: &str = "\
Examples:
  bash:  pod-monitor completions bash > ~/.local/share/bash-completion/completions/pod-monitor
  zsh:   pod-monitor completions zsh > \"${fpath[1]}/_pod-monitor\"
  fish:  pod-monitor completions fish > ~/.config/fish/completions/pod-monitor.fish

Exit codes: 0 printed, 2 no such shell.";

/// Flags of `completions`.
#[derive(Args)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// The text for a shell.
#[derive(Debug)]
pub struct Completions(Vec<u8>);

/// Makes it, of the command line as it is. `given`: what clap has let through.
pub(super) fn of(given: &ArgMatches, mut command: Command) -> Completions {
    let shell = given.get_one::<Shell>("shell").copied().unwrap_or(Shell::Bash);
    let (name, mut text) = (command.get_name().to_owned(), Vec::new());
    // Into memory: it panics where it cannot write, and a reader may go away.
    clap_complete::generate(shell, &mut command, name, &mut text);
    if shell == Shell::Bash {
        // 4.6.12 takes the hyphen of our name for a step down to a sub-command, in one of two places: no flag of a
        // sub-command would be completed.
        text = String::from_utf8_lossy(&text).replace("pod__subcmd__monitor", "pod__monitor").into_bytes();
    }
    Completions(text)
}

/// Prints it.
pub fn run(completions: &Completions) -> ExitCode {
    // A reader that has gone away wanted no more of it.
    drop(std::io::stdout().write_all(&completions.0));
    ExitCode::SUCCESS
}
