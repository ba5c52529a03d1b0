//! pod-monitor: parses, starts telemetry, runs. Everything else is in the library.

use std::process::ExitCode;

use pod_monitor::{
    cli::{self, Command},
    config::Surroundings,
    telemetry::Telemetry,
};

fn main() -> ExitCode {
    let command = cli::parse(std::env::args_os(), &|name| std::env::var_os(name), &Surroundings::of_this_process());
    let config = match command {
        Ok(Command::Run(config)) => config,
        Ok(Command::Verify(verify)) => return cli::verify::run(&verify),
        Ok(Command::Reshard(reshard)) => return cli::reshard::run(*reshard),
        Ok(Command::Schema(schema)) => return cli::schema::run(&schema),
        Ok(Command::Explain(explain)) => return cli::explain::run(&explain),
        Ok(Command::Check(check)) => return cli::check::run(&check),
        Ok(Command::Status(status)) => return cli::status::run(&status),
        Ok(Command::Events(events)) => return cli::events::run(*events),
        Ok(Command::Completions(completions)) => return cli::completions::run(&completions),
        Err(error) => return cli::refuse(&error),
    };
    // Before the async runtime starts and after it has ended: the exporter of traces blocks.
    let telemetry = match Telemetry::start(&config.log, &config.identity) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            eprintln!("error: {}", cli::chain(&error));
            return ExitCode::from(cli::EXIT_CONFIG);
        }
    };
    let code = cli::run(*config, &telemetry);
    telemetry.shutdown();
    code
}
