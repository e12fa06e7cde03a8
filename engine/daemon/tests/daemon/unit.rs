//! The systemd unit keeps what it promises.

use std::path::Path;
use std::process::Command;

/// Most exposure that `systemd-analyze security` may find, in tenths.
const EXPOSURE_MAX: &str = "--threshold=20";

#[test]
fn the_unit_is_exposed_as_little_as_promised() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../systemd/voiced.service");
    let Ok(told) = Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager", EXPOSURE_MAX]).arg(unit).output() else {
        assert!(std::env::var_os("CI").is_none(), "there is no systemd-analyze here");
        return eprintln!("skipped: there is no systemd-analyze here");
    };
    assert!(told.status.success(), "{}{}", String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
}
