//! A host for one test, and what runs on it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use remoor_skip::skip;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

/// No test waits longer than this; it is far above what any needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// An address of every host that is not loopback's, so that whoever asks there is another host to the server.
pub(crate) const ADDRESS: &str = "192.0.2.5";
/// Brings the host up and keeps it until standard input ends, which it does at the latest with the test.
const SETUP: &str = "ip link set lo up && ip address add 192.0.2.5/32 dev lo && mount -t tmpfs none /run && echo up && exec cat";

fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

fn is_installed(program: &str) -> bool {
    path().split(':').any(|dir| Path::new(dir).join(program).is_file())
}

/// A network and a mount namespace with an exported directory.
pub(crate) struct Host {
    holder: Child,
    pub(crate) dir: TempDir,
}

impl Host {
    /// `None` if the test cannot run here, which is then written down.
    pub(crate) fn up(test: &str, needs: &[(&str, &str)]) -> Option<Self> {
        if !geteuid().is_root() {
            skip(test, "only root may use port 111 and rpcbind");
            return None;
        }
        for (program, package) in needs {
            if !is_installed(program) {
                skip(test, format!("{program} is missing (apt-get install {package})"));
                return None;
            }
        }
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount", "--propagation", "private", "sh", "-c", SETUP]).env("PATH", path());
        let mut holder = unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "up\n" {
            holder.wait().unwrap();
            skip(test, "namespaces cannot be made here (unshare --net --mount)");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("srv")).unwrap();
        Some(Self { holder, dir })
    }

    /// A program on this host.
    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.holder.id().to_string(), "--net", "--mount", "--", program])
            .args(args);
        command.env("PATH", path()).env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    /// What a program says, and whether it ended well. None may take longer than [`PATIENCE`].
    pub(crate) fn run(&self, line: &str) -> (bool, String) {
        let words: Vec<&str> = line.split(' ').collect();
        let patience = PATIENCE.as_secs().to_string();
        let output = self.command("timeout", &[&[&*patience], &words[..]].concat()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// What a program that must end well says.
    pub(crate) fn said(&self, line: &str) -> String {
        let (good, said) = self.run(line);
        assert!(good, "{line}: {said}");
        said
    }

    /// Runs a program again and again until what it says pleases.
    pub(crate) fn await_said(&self, line: &str, pleases: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (good, said) = self.run(line);
            if good && pleases(&said) {
                return said;
            }
            assert!(Instant::now() < deadline, "{line}: {said}");
        }
    }

    pub(crate) fn export(&self) -> String {
        self.dir.path().join("srv").to_str().unwrap().to_owned()
    }

    /// `remoor serve` of the exported directory at every address, once its log says `ready`.
    pub(crate) fn serve(&self, name: &str, port: u16, options: &[&str], ready: &str) -> Program {
        self.serve_to(":rw,insecure", name, port, options, ready)
    }

    /// Likewise, of the directory as `to` says.
    pub(crate) fn serve_to(&self, to: &str, name: &str, port: u16, options: &[&str], ready: &str) -> Program {
        let (export, state) = (format!("{}{to}", self.export()), self.dir.path().join(name));
        let listen = [format!("0.0.0.0:{port}"), format!("[::]:{port}")];
        let args = ["serve", "--export", &export, "--state", state.to_str().unwrap()];
        let listen = ["--listen", &listen[0], "--listen", &listen[1]];
        let all = [&args[..], &listen, options].concat();
        let mut command = self.command(env!("CARGO_BIN_EXE_remoor"), &all);
        command.env("RUST_LOG", "info").env("NO_COLOR", "1");
        let server = Program::start(command);
        server.await_line(ready);
        server
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A program at work, and its log. Dropping it kills it.
pub(crate) struct Program {
    child: Child,
    log: Receiver<String>,
}

impl Program {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, log) = channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        std::thread::spawn(move || lines.map_while(|line| sender.send(line).ok()).for_each(drop));
        Self { child, log }
    }

    pub(crate) fn await_line(&self, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            let line =
                self.log.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("no {text:?}: {e}: {seen:#?}"));
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
    }

    /// Lines that have come since the last look.
    pub(crate) fn rest(&self) -> Vec<String> {
        self.log.try_iter().collect()
    }

    /// Ends it by SIGTERM; whether it ended well.
    pub(crate) fn stop(mut self) -> bool {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap().success()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
