//! What `remoor drill --out` leaves in its directory.

use std::fs;
use std::process::Command;

#[test]
fn a_directory_gets_a_page_the_json_and_a_story_of_each_case() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("new/drill");
    let mut drill = Command::new(env!("CARGO_BIN_EXE_remoor"));
    let status = drill.args(["drill", "--simulate", "--json", "--out"]).arg(&out).output().unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(read("report.json"), String::from_utf8(status.stdout).unwrap().trim_end());
    let page = read("report.html");
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"));
    assert!(page.contains("12 cases: 9 recovered, 3 hang as predicted, none failed"));
    assert!(read("01-azure-standard-resvport-abandon-silent-silent.txt").contains("(3) node A silenced"));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 2 + 12);
}
