//! Facts about the machine without which its figures mean nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use aws_lc_rs::digest::{SHA256, digest};
use nix::sys::utsname::uname;
use serde::{Deserialize, Serialize};

/// CPU flags that ciphers and checksums depend on.
const CPU_FLAGS: [&str; 12] = [
    "aes",
    "avx",
    "avx2",
    "avx512f",
    "bmi2",
    "gfni",
    "hypervisor",
    "pclmulqdq",
    "sha_ni",
    "ssse3",
    "vaes",
    "vpclmulqdq",
];

/// Sysctls that queues and TCP depend on.
const SYSCTLS: [&str; 13] = [
    "net.core.default_qdisc",
    "net.core.netdev_budget",
    "net.core.netdev_max_backlog",
    "net.core.optmem_max",
    "net.core.rmem_default",
    "net.core.rmem_max",
    "net.core.wmem_default",
    "net.core.wmem_max",
    "net.ipv4.tcp_available_congestion_control",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.udp_mem",
];

/// The machine as it was when a measurement began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Name and release of the kernel.
    pub(crate) kernel: String,
    /// Model of the first processor.
    pub(crate) cpu_model: String,
    /// Processors this program may use.
    pub(crate) cores: usize,
    /// Flags of the processor that matter here.
    pub(crate) cpu_flags: Vec<String>,
    pub(crate) memory_bytes: u64,
    /// Sysctls by name, as they are outside the lab.
    pub(crate) sysctls: BTreeMap<String, String>,
    /// Niceness of this program and of all it starts; below 0 they go before other work on the machine.
    pub(crate) nice: i64,
    /// Load average over a minute.
    pub(crate) load_average: f64,
    /// Commit of the source tree this program was built in, with `+` where files differ from it; `None` elsewhere.
    pub(crate) commit: Option<String>,
}

impl Machine {
    pub(crate) fn describe() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let flags: Vec<&str> = field(&cpu, "flags").unwrap_or_default().split_whitespace().collect();
        let kibibytes = field(&memory, "MemTotal").and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        let sysctl = |name: &&str| {
            let value = read(&format!("/proc/sys/{}", name.replace('.', "/")));
            (!value.is_empty()).then(|| ((*name).to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" ")))
        };
        Self {
            kernel: kernel(),
            cpu_model: field(&cpu, "model name").unwrap_or("unknown").to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            cpu_flags: CPU_FLAGS.iter().filter(|flag| flags.contains(flag)).map(|flag| (*flag).to_owned()).collect(),
            memory_bytes: kibibytes.unwrap_or_default() * 1024,
            sysctls: SYSCTLS.iter().filter_map(sysctl).collect(),
            nice: niceness(&read("/proc/self/stat")).unwrap_or_default(),
            load_average: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
            commit: commit(),
        }
    }

    pub(crate) fn line(&self) -> String {
        format!("{}, {} cores, {}", self.cpu_model, self.cores, self.kernel)
    }
}

/// The niceness in `/proc/PID/stat` (proc_pid_stat(5)).
fn niceness(stat: &str) -> Option<i64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(16)?.parse().ok()
}

fn kernel() -> String {
    uname().map_or_else(
        |_| "unknown".to_owned(),
        |name| format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy()),
    )
}

/// The first value of a `name: value` file such as `/proc/cpuinfo`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(arguments).stderr(Stdio::null());
        let output = command.output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let head = git(&["rev-parse", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|status| !status.is_empty());
    Some(if changed { format!("{head}+") } else { head })
}

/// What identifies a program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) name: String,
    /// What it says of its version, where it does.
    pub(crate) version: Option<String>,
    /// SHA-256 of its file, in hexadecimal.
    pub(crate) sha256: Option<String>,
}

impl Program {
    /// Asks a program for its version and hashes its file.
    pub(crate) fn of(path: &Path) -> Self {
        let output = Command::new(path).arg("--version").stdin(Stdio::null()).output().ok();
        let said = output.filter(|output| output.status.success());
        let first = said.and_then(|output| String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned));
        let hash = fs::read(path).ok().map(|bytes| {
            let digest = digest(&SHA256, &bytes);
            data_encoding::HEXLOWER.encode(digest.as_ref())
        });
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, version: first.filter(|line| !line.trim().is_empty()), sha256: hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_is_described() {
        let machine = Machine::describe();
        assert!(machine.kernel.starts_with("Linux") && machine.cores > 0 && machine.memory_bytes > 1 << 28);
        assert!(machine.sysctls.contains_key("net.ipv4.tcp_rmem"), "{:?}", machine.sysctls);
        assert!(machine.line().contains(&machine.cpu_model));
    }

    #[test]
    fn niceness_is_the_nineteenth_field() {
        let stat = "7 (a b) S 1 7 7 0 -1 4194560 1 2 3 4 150 30 5 6 20 -15 1 0 99 1 2";
        assert_eq!(niceness(stat), Some(-15));
    }

    #[test]
    fn program_has_a_hash_and_maybe_a_version() {
        let program = Program::of(Path::new("/bin/sh"));
        assert_eq!(program.sha256.map(|hash| hash.len()), Some(64));
        assert_eq!(Program::of(Path::new("/nonexistent")).sha256, None);
    }
}
