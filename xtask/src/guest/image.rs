//! A guest's root: busybox, the programs that mount NFS with their libraries, and the kernel's modules. The kernel
//! unpacks it into memory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::cpio::Tree;
use super::kernel::Unpacked;

/// Modules a guest may load, with those they need. What a kernel has built in has no module.
const MODULES: &[&str] = &["nfs", "nfsv3", "lockd", "ext4", "crc32c_generic"];
/// Programs of the host, as they are called in the guest. What is not there is left out.
const PROGRAMS: &[(&str, &str)] = &[
    ("mount.nfs", "/sbin/mount.nfs"),
    ("mount", "/bin/mount"),
    ("umount", "/bin/umount"),
    ("ip", "/sbin/ip"),
    ("git", "/usr/bin/git"),
    ("dd", "/bin/dd"),
];
/// Names of busybox that the guest uses.
const APPLETS: &[&str] = &[
    "sh", "ash", "cat", "cut", "ls", "mkdir", "mknod", "modprobe", "uname", "sync", "poweroff", "echo",
    "grep", "tail", "dmesg", "chmod", "chown", "rm", "ps", "kill", "sleep", "df", "stat", "sed", "cp", "mv",
    "ln", "id", "env", "touch", "hostname",
];
const CONFIGURATION: &[(&str, &str)] = &[
    ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n"),
    ("/etc/group", "root:x:0:\nuser:x:1000:\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\nservices: files\nrpc: files\n"),
    ("/etc/netconfig", "udp tpi_clts v inet udp - -\ntcp tpi_cots_ord v inet tcp - -\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n"),
];

/// Builds the root for a kernel and programs that will be run in it: their libraries come along, they themselves do
/// not.
pub(super) fn build(kernel: &Unpacked, run_there: &[&Path], file: &Path) -> anyhow::Result<()> {
    let mut tree = Tree::default();
    for path in ["/proc", "/sys", "/dev", "/run", "/tmp", "/root", "/host", "/mnt", "/var/lib/nfs"] {
        tree.directory(path);
    }
    // As on the host, where libraries are named by either path.
    tree.link("/lib", "usr/lib");
    tree.link("/lib64", "usr/lib64");
    tree.device("/dev/console", 5, 1);
    tree.file("/init", 0o755, include_str!("init.sh"));
    tree.link("/etc/mtab", "/proc/self/mounts");
    CONFIGURATION.iter().for_each(|(path, text)| tree.file(path, 0o644, *text));
    ["/etc/protocols", "/etc/services", "/etc/rpc"]
        .into_iter()
        .for_each(|path| copy_if_there(&mut tree, path));
    programs(&mut tree, run_there)?;
    modules(&mut tree, &kernel.modules)?;
    tree.write(&mut BufWriter::new(File::create(file)?))
        .with_context(|| format!("cannot write {}", file.display()))
}

fn copy_if_there(tree: &mut Tree, path: &str) {
    if let Ok(bytes) = fs::read(path) {
        tree.file(path, 0o644, bytes);
    }
}

fn programs(tree: &mut Tree, run_there: &[&Path]) -> anyhow::Result<()> {
    tree.file("/bin/busybox", 0o755, read(&find("busybox").context("there is no busybox")?)?);
    APPLETS.iter().for_each(|applet| tree.link(&format!("/bin/{applet}"), "busybox"));
    for (name, place) in PROGRAMS {
        if let Some(program) = find(name) {
            tree.file(place, 0o755, read(&program)?);
            libraries(tree, &program)?;
        }
    }
    // git(1) starts its parts by name; these are git itself.
    for part in ["git-upload-pack", "git-receive-pack"] {
        tree.link(&format!("/usr/bin/{part}"), "git");
    }
    // Loaded by name, so that ldd(1) does not tell.
    copy_library(tree, "/lib/x86_64-linux-gnu/libnss_files.so.2");
    run_there.iter().try_for_each(|program| libraries(tree, program))
}

fn find(name: &str) -> Option<PathBuf> {
    let dirs = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"];
    dirs.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Adds what ldd(1) names, at the paths it names.
fn libraries(tree: &mut Tree, program: &Path) -> anyhow::Result<()> {
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    library_paths(&text).for_each(|path| copy_library(tree, path));
    Ok(())
}

fn library_paths(ldd: &str) -> impl Iterator<Item = &str> {
    ldd.split_whitespace().filter(|word| word.starts_with('/') && word.contains(".so"))
}

fn copy_library(tree: &mut Tree, path: &str) {
    let place = if path.starts_with("/lib") { format!("/usr{path}") } else { path.to_owned() };
    if !tree.has(&place)
        && let Ok(bytes) = fs::read(path)
    {
        let mode = fs::metadata(path).map_or(0o755, |metadata| metadata.permissions().mode() & 0o7777);
        tree.file(&place, mode, bytes);
    }
}

/// Adds [`MODULES`] and what they need, with a list of dependencies that names only these.
fn modules(tree: &mut Tree, dir: &Path) -> anyhow::Result<()> {
    let listed = fs::read_to_string(dir.join("modules.dep"));
    let listed = listed.with_context(|| format!("{} has no modules.dep", dir.display()))?;
    let dependencies = Dependencies::read(&listed);
    let place = format!("/usr/lib/modules/{}", dir.file_name().unwrap_or_default().to_string_lossy());
    let mut kept = String::new();
    let chosen = dependencies.closure(MODULES);
    ensure!(!chosen.is_empty(), "{} has none of {MODULES:?}", dir.display());
    for path in chosen {
        tree.file(&format!("{place}/{path}"), 0o644, read(&dir.join(path))?);
        kept.push_str(&format!("{path}: {}\n", dependencies.0[path].join(" ")));
    }
    tree.file(&format!("{place}/modules.dep"), 0o644, kept);
    Ok(())
}

/// The content of modules.dep(5): for each module's path, all paths it needs.
struct Dependencies<'a>(BTreeMap<&'a str, Vec<&'a str>>);

impl<'a> Dependencies<'a> {
    fn read(text: &'a str) -> Self {
        let line = |line: &'a str| {
            let (module, needs) = line.split_once(':')?;
            Some((module, needs.split_whitespace().collect()))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// The paths of modules of these names, and of all they need.
    fn closure(&self, names: &[&str]) -> Vec<&'a str> {
        let named = |path: &&str| names.contains(&module_name(path));
        let wanted = self.0.iter().filter(|(path, _)| named(path));
        let mut paths: Vec<&str> =
            wanted.flat_map(|(path, needs)| [*path].into_iter().chain(needs.iter().copied())).collect();
        paths.sort_unstable();
        paths.dedup();
        paths.retain(|path| self.0.contains_key(path));
        paths
    }
}

fn module_name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_with_all_it_needs_and_nothing_else() {
        let text = "kernel/fs/nfs/nfs.ko: kernel/net/sunrpc/sunrpc.ko\nkernel/net/sunrpc/sunrpc.ko:\nkernel/fs/xfs.ko:\n";
        let dependencies = Dependencies::read(text);
        assert_eq!(dependencies.closure(&["nfs"]), ["kernel/fs/nfs/nfs.ko", "kernel/net/sunrpc/sunrpc.ko"]);
        assert_eq!(dependencies.closure(&["ext4"]), [""; 0]);
        assert_eq!(module_name("kernel/crypto/crc32c_generic.ko.xz"), "crc32c_generic");
    }

    #[test]
    fn the_libraries_that_ldd_names_are_found() {
        let ldd = "\tlinux-vdso.so.1 (0x7fff)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        let found: Vec<_> = library_paths(ldd).collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert_eq!(library_paths("\tnot a dynamic executable\n").count(), 0);
    }
}
