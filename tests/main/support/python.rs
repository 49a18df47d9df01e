//! Python programs: an environment in the target folder with pinned packages, kept there.
//!
//! Without Python, `venv` or the packages a test fails and says what is missing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

/// Longest time for a program to end.
const PATIENCE: Duration = Duration::from_secs(300);

/// An environment.
pub(crate) struct Python(PathBuf);

impl Python {
    /// One with the packages that a file pins, made when there is none or other ones are pinned.
    pub(crate) async fn with(name: &str, requirements: &Path) -> Self {
        let wanted = std::fs::read_to_string(requirements).expect("a list of packages");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let installed = folder.join("installed.txt");
        let python = Self(folder);
        if std::fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
            return python;
        }
        let _ = std::fs::remove_dir_all(&python.0);
        let help = "this test needs Python 3.10 or later with venv: run tests/install-deps.sh";
        run(Path::new("python3"), &["-m", "venv", text(&python.0)], help).await;
        let pip =
            ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"];
        let args: Vec<&str> = pip.into_iter().chain([text(requirements)]).collect();
        let help = "this test needs the Python Package Index once";
        run(&python.program("python"), &args, help).await;
        std::fs::write(installed, wanted).expect("a note of what is installed");
        python
    }

    /// A program of the environment.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.0.join("bin").join(name)
    }
}

/// Runs a command and gives its output; ends the test, with `help`, when it fails.
pub(crate) async fn run(program: &Path, args: &[&str], help: &str) -> String {
    try_run(program, args, Path::new(".")).await.unwrap_or_else(|told| panic!("{told}\n{help}"))
}

/// Runs a command in a folder and gives its output, or what it said when it failed.
pub(crate) async fn try_run(
    program: &Path,
    args: &[&str],
    folder: &Path,
) -> Result<String, String> {
    let line = format!("{} {}", program.display(), args.join(" "));
    let output = Command::new(program).args(args).current_dir(folder).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output).await;
    let output = output.map_err(|_| format!("{line}: takes too long"))?;
    let output = output.map_err(|error| format!("{line}: {error}"))?;
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        Ok(out.into_owned())
    } else {
        Err(format!("{line}: {}\n{out}{err}", output.status))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}
