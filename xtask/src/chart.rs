//! `chart`: writes the files of deploy/ that are made of other files of it.

use std::fs;

use anyhow::{Context, Result};
use testkit::chart::{Generated, generated};

use crate::suites;

/// Writes those that are not as they should be, and names them.
pub(crate) fn write() -> Result<()> {
    let root = suites::workspace();
    for Generated { path, text } in generated(root)? {
        let file = root.join(&path);
        if fs::read_to_string(&file).is_ok_and(|is| is == text) {
            continue;
        }
        fs::create_dir_all(file.parent().context("a file is in a directory")?)?;
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        println!("written: {}", path.display());
    }
    Ok(())
}
