//! `remoor drill` as a user runs it: the built program, real hosts, real packets.
//!
//! Gaps are not asserted beyond what the program itself judges (prediction plus tolerance): a busy machine may be slow,
//! but it does not change ports, pinning or data.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::sync::Mutex;

use remoor_skip::skip;
use serde_json::Value;

/// One drill at a time: each has several cases at once already, and this machine may have two cores.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const PROGRAM: &str = env!("CARGO_BIN_EXE_remoor");

fn drill(args: &str) -> Output {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    Command::new(PROGRAM).arg("drill").args(args.split_whitespace()).output().unwrap()
}

/// The cases of a drill that must pass.
fn passing(args: &str) -> Vec<Value> {
    let output = drill(&format!("{args} --json"));
    let report = cases(&output);
    assert_eq!(output.status.code(), Some(0), "{args}: {report:#?}");
    report
}

fn cases(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {text}"));
    report["cases"].as_array().unwrap().clone()
}

/// Balancer, options, rebind, pinned, recovered.
fn outcome(case: &Value) -> (&str, &str, &str, bool, bool) {
    let text = |field: &str| case[field].as_str().unwrap_or("none");
    (
        text("balancer"),
        text("options"),
        text("rebind"),
        case["pinned"].as_bool().unwrap(),
        !case["gap_ms"].is_null(),
    )
}

/// Whether `program` is there; if not, the test says so and ends.
fn has(program: &str, package: &str, test: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let found = path.split(':').any(|dir| std::path::Path::new(dir).join(program).exists());
    if !found {
        skip(test, format!("package {package} is missing"));
    }
    found
}

#[test]
fn the_default_matrix_comes_out_as_known_of_these_balancers() {
    let cases = passing("");
    assert_eq!(cases.len(), 12);
    for case in &cases {
        let (balancer, options, rebind, pinned, recovered) = outcome(case);
        let hangs = matches!(
            (balancer, options),
            ("azure-standard", "resvport,abandon=silent" | "resvport")
                | ("nf-conntrack", "resvport,abandon=silent")
        );
        let fresh = options.contains("noresvport") || options.contains("fresh");
        assert_eq!((pinned, recovered), (hangs, !hangs), "{balancer} {options}");
        assert_eq!(rebind, if fresh { "fresh" } else { "same" }, "{balancer} {options}");
        assert_eq!(case["lost"], 0, "{balancer} {options}");
        for attempt in case["attempts"].as_array().unwrap() {
            let port = attempt["port"].as_u64().unwrap();
            assert_eq!(port >= 1024, options.contains("noresvport"), "{balancer} {options}: port {port}");
        }
    }
}

#[test]
fn the_kernels_own_nat_behaves_as_its_model() {
    if !has("nft", "nftables", "the_kernels_own_nat_behaves_as_its_model") {
        return;
    }
    let options = "-o resvport,abandon=silent -o resvport -o noresvport -o resvport,rebind=fresh";
    for case in passing(&format!("-b kernel {options}")) {
        let (_, options, _, pinned, recovered) = outcome(&case);
        let hangs = options == "resvport,abandon=silent";
        assert_eq!((pinned, recovered), (hangs, !hangs), "{options}");
    }
    // A FIN that crossed leaves LAST_ACK behind, which holds the flow for 30 s (nf_conntrack_proto_tcp.c).
    let fin = passing("-b kernel -b nf-conntrack -o resvport,abandon=fin --window 50");
    for case in fin {
        let gap = case["gap_ms"].as_f64().unwrap();
        assert!((29_000.0..45_000.0).contains(&gap), "{gap}");
    }
}

#[test]
fn a_stopped_server_is_left_and_what_it_does_when_it_resumes_undoes_nothing() {
    for case in passing("-f stop -b azure-standard -b nf-conntrack -o noresvport -o resvport,rebind=fresh") {
        let (balancer, options, rebind, pinned, recovered) = outcome(&case);
        assert_eq!((rebind, pinned, recovered), ("fresh", false, true), "{balancer} {options}");
        assert_eq!(case["lost"], 0, "{balancer} {options}");
    }
}

#[test]
fn a_killed_server_and_a_flapping_node_lose_nothing() {
    let cases =
        passing("-f kill -f flap -b azure-standard -o noresvport -o resvport,rebind=fresh -w appender");
    assert!(cases.iter().all(|case| !case["gap_ms"].is_null() && case["lost"] == 0), "{cases:#?}");
}

#[test]
fn ten_failovers_to_and_fro_lose_nothing() {
    for case in passing("-b azure-standard -b aws-nlb -o noresvport --rounds 10") {
        let breaks = case["breaks"].as_array().unwrap();
        let nodes: Vec<_> = breaks.iter().map(|broken| broken["node"].as_str().unwrap()).collect();
        assert_eq!(nodes, ["A", "B"].repeat(5));
        assert!(breaks.iter().all(|broken| !broken["first_reply_ms"].is_null()), "{breaks:#?}");
        assert_eq!((&case["lost"], &case["rebind"]), (&0.into(), &"fresh".into()));
    }
}

#[test]
fn the_story_tells_the_five_steps() {
    let output = drill("--balancer azure-standard -o noresvport --fault silent --story");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in [
        "(1) mounted",
        "(2) capturing",
        "(3) node A silenced",
        "different, above 1023",
        "(5) client back",
        "PASS",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn tshark_sees_the_same_syns_in_the_saved_packets() {
    if !has("tshark", "tshark", "tshark_sees_the_same_syns_in_the_saved_packets") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let pcap = dir.path().join("case.pcapng");
    let case = &passing(&format!("-b azure-standard -o resvport --pcap {}", pcap.display()))[0];
    let mut ours: Vec<(u64, u64)> = Vec::new();
    for attempt in case["attempts"].as_array().unwrap() {
        let syns = 1 + attempt["retransmissions"].as_u64().unwrap();
        let syn = (attempt["port"].as_u64().unwrap(), attempt["isn"].as_u64().unwrap());
        ours.extend((0..syns).map(|_| syn));
    }
    let filter = "tcp.flags.syn==1 && tcp.flags.ack==0 && frame.interface_name==\"client\"";
    let fields = ["-T", "fields", "-e", "tcp.srcport", "-e", "tcp.seq_raw"];
    let output =
        Command::new("tshark").arg("-r").arg(&pcap).args(["-Y", filter]).args(fields).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let number = |word: Option<&str>| word.unwrap().parse::<u64>().unwrap();
    let mut theirs: Vec<(u64, u64)> =
        text.lines().map(|line| line.split('\t')).map(|mut w| (number(w.next()), number(w.next()))).collect();
    ours.sort_unstable();
    theirs.sort_unstable();
    assert!(ours.len() > 2, "{case:#?}");
    assert_eq!(ours, theirs);
}

#[test]
fn simulation_comes_to_the_same_as_the_real_matrix() {
    let key = |case: &Value| {
        let (balancer, options, rebind, pinned, recovered) = outcome(case);
        format!("{balancer} {options} {rebind} {pinned} {recovered}")
    };
    let real: Vec<_> = passing("-b azure-standard -b aws-nlb -f silent").iter().map(key).collect();
    let simulated: Vec<_> =
        passing("-b azure-standard -b aws-nlb -f silent --simulate").iter().map(key).collect();
    assert_eq!(real, simulated);
}

#[test]
fn a_case_that_does_not_come_out_as_predicted_is_exit_code_1() {
    // No window is long enough for a gap of 0 s to be seen, though it is predicted to be there.
    let output = drill("-b aws-nlb -o noresvport --window 0.001 --json");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(cases(&output)[0]["verdict"], "fail");
}

#[test]
fn bad_input_is_one_clear_line_and_exit_code_2() {
    for (args, parts) in [
        ("-b azure", ["unknown balancer `azure`", "azure-standard"]),
        ("-o noresvprt", ["unknown option \"noresvprt\"", "did you mean \"noresvport\""]),
        ("-f flood", ["unknown fault `flood`", "silent, kill, stop, flap"]),
        ("-w none", ["unknown workload `none`", "writers"]),
        ("--pcap x.pcapng", ["--pcap saves one case", "--out DIR"]),
    ] {
        let output = drill(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args}: {text}");
        assert_eq!(text.lines().count(), 1, "{args}: {text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{args}: {text}");
    }
}

#[test]
fn an_ordinary_user_can_run_it() {
    const NOBODY: u32 = 65_534;
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    // The build directory may not be readable for another user.
    let program = dir.path().join("remoor");
    std::fs::copy(PROGRAM, &program).unwrap();
    let mut command = Command::new(&program);
    command.args(["drill", "-b", "azure-standard", "-o", "resvport", "-o", "noresvport", "--json"]);
    command.env("TMPDIR", dir.path()).current_dir("/");
    if rustix::process::geteuid().is_root() {
        let owner = std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY));
        owner.unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(3) && text.contains("user namespaces are off") {
        return skip("an_ordinary_user_can_run_it", &text);
    }
    assert_eq!(output.status.code(), Some(0), "{text}");
    let cases = cases(&output);
    assert_eq!(outcome(&cases[0]), ("azure-standard", "resvport", "same", true, false));
    assert_eq!(outcome(&cases[1]), ("azure-standard", "noresvport", "fresh", false, true));
}
