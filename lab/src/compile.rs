//! Small programs in C that stand between a program and its system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Compiles C source to a file of this name in a folder, with these options of the compiler.
///
/// # Errors
/// Fails where there is no C compiler, or it refuses the source.
pub fn compile(folder: &Path, name: &str, source: &str, options: &[&str]) -> Result<PathBuf> {
    let (text, made) = (folder.join(format!("{name}.c")), folder.join(name));
    fs::write(&text, source).with_context(|| format!("write {}", text.display()))?;
    let status = Command::new("cc").args(options).arg("-o").arg(&made).arg(&text).arg("-ldl").status();
    ensure!(status.context("run cc, the C compiler")?.success(), "cc does not compile {}", text.display());
    Ok(made)
}
