//! The flags of `serve` and `check`, made from the table of settings.
//!
//! Values are kept as text: they are read together with those of the environment and the file, so
//! that a mistake in a flag is reported beside all others. `clap` sees only whether a flag exists.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::builder::PathBufValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::settings::{self, ENV_PREFIX, Kind, Setting};

/// The flags that were given, by name.
#[derive(Clone, Debug, Default)]
pub struct ServeFlags {
    config: Option<PathBuf>,
    values: BTreeMap<&'static str, String>,
}

impl ServeFlags {
    /// The same with `setting` given as `value`.
    #[must_use]
    pub fn with(mut self, setting: &'static Setting, value: impl Into<String>) -> Self {
        self.values.insert(setting.flag, value.into());
        self
    }

    /// The same with the file at `path`.
    #[must_use]
    pub fn with_config(mut self, path: impl Into<PathBuf>) -> Self {
        self.config = Some(path.into());
        self
    }

    /// `--config`.
    #[must_use]
    pub fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// What the flag of `setting` was given as.
    #[must_use]
    pub fn value(&self, setting: &Setting) -> Option<&str> {
        self.values.get(setting.flag).map(String::as_str)
    }
}

impl clap::Args for ServeFlags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(PathBufValueParser::new())
            .help(format!("The configuration file, TOML [env: {ENV_PREFIX}CONFIG]"));
        command.arg(config).args(settings::ALL.iter().map(|setting| argument(setting)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for ServeFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        if let Some(path) = matches.get_one::<PathBuf>("config") {
            self.config = Some(path.clone());
        }
        for setting in settings::ALL {
            if let Some(values) = matches.get_many::<String>(setting.flag) {
                let values: Vec<&str> = values.map(String::as_str).collect();
                self.values.insert(setting.flag, values.join(","));
            }
        }
        Ok(())
    }
}

fn argument(setting: &'static Setting) -> Arg {
    let note = |name: &str, text: Option<&str>| {
        text.map_or_else(String::new, |text| format!(" [{name}: {text}]"))
    };
    let help = format!(
        "{}{}{}{}",
        setting.help,
        note("default", setting.default),
        note("env", Some(&setting.env())),
        note("file", setting.key),
    );
    let argument = Arg::new(setting.flag)
        .long(setting.flag)
        .value_name(value_name(setting.kind))
        .help(help)
        .help_heading(heading(setting));
    if matches!(setting.kind, Kind::Switch | Kind::Passthrough) {
        // `--allow-anonymous` alone is true; a value needs `=`, so that it swallows nothing else
        return argument.num_args(0..=1).require_equals(true).default_missing_value("true");
    }
    if setting.kind == Kind::Origins {
        return argument.action(ArgAction::Append);
    }
    argument
}

fn heading(setting: &Setting) -> &'static str {
    match setting.key.and_then(|key| key.split_once('.')).map(|(section, _)| section) {
        Some("server") => "Listeners",
        Some("upstream") => "Upstream",
        Some("oauth") => "Tokens",
        Some("queue") => "Queue",
        Some("store" | "admin") => "Store and admin API",
        Some("log") => "Logging",
        Some(_) | None => "API keys and their limits",
    }
}

fn value_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Address => "ADDRESS",
        Kind::Switch => "BOOL",
        Kind::Passthrough | Kind::StoreLoss => "MODE",
        Kind::Duration(..) => "DURATION",
        Kind::Size(..) => "SIZE",
        Kind::Count(..) => "NUMBER",
        Kind::BaseUrl | Kind::Url | Kind::Store => "URL",
        Kind::File | Kind::SecretFile | Kind::NewFile => "FILE",
        Kind::Plan => "PLAN",
        Kind::Rate => "RATE",
        Kind::Guard => "GUARD",
        Kind::TimeOfDay => "TIME",
        Kind::LogFormat => "FORMAT",
        Kind::LogLevel => "LEVEL",
        Kind::ClientId => "ID",
        Kind::Reserve => "PERCENT",
        Kind::Origins => "ORIGIN",
        Kind::Name | Kind::Secret | Kind::SecretEnv | Kind::AuthStyle | Kind::Scopes => "TEXT",
    }
}
