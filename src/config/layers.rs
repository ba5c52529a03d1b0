//! Flag before variable before file before default.
//!
//! clap knows the flags, their parsers and defaults. What a flag does not say comes from the variable or the file and
//! is handed to clap as that argument's default, after the flag's own parser has accepted it: so every value is read
//! by one parser, and each error names where the value stands.

use std::{collections::BTreeMap, error::Error as _, ffi::OsString};

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};

use super::{Error, Origin, Variables, args::RunArgs, file, properties};

/// Where each key's value came from; keys with their defaults are absent.
pub(super) type Origins = BTreeMap<String, Origin>;

/// Names the variable of each flag in the help, and keeps the help to a line or two a flag.
pub(crate) fn with_variables(command: Command) -> Command {
    let help = Arg::new("help").short('h').long("help").action(ArgAction::HelpShort).help("Print help");
    let command = command.disable_help_flag(true).mut_args(|arg| {
        let Some(long) = arg.get_long() else { return arg };
        let variable = variable(long);
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        arg.help(format!("{help} [env: {variable}]"))
    });
    command.arg(help)
}

/// All keys of a command.
pub(super) fn keys<A: Args>() -> Vec<String> {
    alone::<A>().get_arguments().filter_map(Arg::get_long).map(str::to_owned).collect()
}

/// The command's flags by themselves.
fn alone<A: Args>() -> Command {
    A::augment_args(Command::new("settings").no_binary_name(true))
}

/// The variable of a key.
pub(super) fn variable(key: &str) -> String {
    // Kubernetes itself sets POD_MONITOR_SERVICE_HOST, POD_MONITOR_PORT and the like where a Service is called
    // pod-monitor: no key may be called so, and unknown variables are not an error.
    format!("POD_MONITOR_{}", key.replace('-', "_").to_ascii_uppercase())
}

/// The settings of a command from all layers. The file is that of `run`, whichever command reads it: keys in it that
/// this command does not have are no mistake.
pub(super) fn resolve<A: Args>(given: &ArgMatches, variables: Variables<'_>) -> Result<(A, Origins), Error> {
    let keys = keys::<A>();
    let mut layers = Layers { values: BTreeMap::new(), origins: Origins::new() };
    for key in &keys {
        let id = key.replace('-', "_");
        if given.value_source(&id) == Some(ValueSource::CommandLine) {
            let values = given.get_raw(&id).into_iter().flatten().map(|raw| raw.to_string_lossy().into_owned());
            layers.set::<A>(key, values.collect(), Origin::Flag)?;
        } else if let Some(raw) = variables(&variable(key)) {
            layers.set::<A>(key, from_variable(key, raw)?, Origin::Variable)?;
        }
    }
    // The file last, since a flag or variable names it.
    if let Some(path) = layers.values.get("config").and_then(|values| values.first()).cloned() {
        let path = std::path::PathBuf::from(path);
        for (key, entry) in file::read(&path, &self::keys::<RunArgs>())? {
            let origin = Origin::File { path: path.clone(), line: entry.line };
            if keys.contains(&key) && !layers.values.contains_key(&key) {
                layers.set::<A>(&key, entry.values, origin)?;
            } else {
                // A wrong line stays wrong where a flag hides it: it would surprise whoever drops the flag.
                check::<RunArgs>(&key, &entry.values, &origin)?;
            }
        }
    }
    let Layers { values, origins } = layers;
    let command = alone::<A>().mut_args(|arg| match arg.get_long().and_then(|long| values.get(long)) {
        Some(values) => arg.default_values(values.clone()),
        None => arg,
    });
    let matches = command.try_get_matches_from(std::iter::empty::<OsString>()).map_err(Error::Clap)?;
    let args = A::from_arg_matches(&matches).map_err(Error::Clap)?;
    Ok((args, origins))
}

struct Layers {
    values: BTreeMap<String, Vec<String>>,
    origins: Origins,
}

impl Layers {
    fn set<A: Args>(&mut self, key: &str, values: Vec<String>, origin: Origin) -> Result<(), Error> {
        check::<A>(key, &values, &origin)?;
        // An empty list says nothing.
        if !values.is_empty() {
            self.values.insert(key.to_owned(), values);
            self.origins.insert(key.to_owned(), origin);
        }
        Ok(())
    }
}

/// A variable's text as the values the flag would take.
fn from_variable(key: &str, raw: OsString) -> Result<Vec<String>, Error> {
    let text = raw.into_string().map_err(|_| Error::Setting {
        origin: Origin::Variable,
        key: key.to_owned(),
        why: "is not valid UTF-8".to_owned(),
    })?;
    Ok(match key {
        "namespace" | "stall-grace" | "replica" | "e2e-label" => {
            text.split([',', '\n']).map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
        }
        "kafka-config" => properties::split_variable(&text),
        _ => vec![text],
    })
}

/// Has the flag's own parser read the values.
fn check<A: Args>(key: &str, values: &[String], origin: &Origin) -> Result<(), Error> {
    for value in values {
        let Err(error) = alone::<A>().try_get_matches_from([format!("--{key}={value}")]) else { continue };
        return Err(Error::Setting { origin: origin.clone(), key: key.to_owned(), why: why(&error, value) });
    }
    Ok(())
}

/// The reason for which clap refused a value.
fn why(error: &clap::Error, value: &str) -> String {
    let value = value.escape_debug();
    match (error.kind(), error.source(), error.get(ContextKind::ValidValue)) {
        (_, _, Some(ContextValue::Strings(valid))) if !valid.is_empty() => {
            format!("'{value}' is not one of: {}", valid.join(", "))
        }
        (_, Some(source), _) => source.to_string(),
        (ErrorKind::InvalidValue | ErrorKind::NoEquals, ..) => "needs a value".to_owned(),
        _ => format!("'{value}' cannot be read"),
    }
}

/// Turns clap's refusal of a flag's value into the form that all layers share; other refusals stay clap's.
pub(crate) fn refused(error: clap::Error) -> Error {
    let value = match (error.kind(), error.get(ContextKind::InvalidValue)) {
        (ErrorKind::ValueValidation | ErrorKind::InvalidValue, Some(ContextValue::String(value))) => value.clone(),
        _ => return Error::Clap(error),
    };
    let Some(ContextValue::String(arg)) = error.get(ContextKind::InvalidArg) else { return Error::Clap(error) };
    let key = arg.trim_start_matches('-').split([' ', '=', '[']).next().unwrap_or_default().to_owned();
    // What stands without a flag has no name to be called by.
    if key.is_empty() || key.starts_with('<') || value.is_empty() {
        return Error::Clap(error);
    }
    Error::Setting { origin: Origin::Flag, key, why: why(&error, &value) }
}
