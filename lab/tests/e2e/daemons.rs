//! Strangers that have to do with names: systemd-resolved and NetworkManager with a bus of their own, and dnsmasq as
//! somebody's name server.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use adit_lab::{Host, Process};
use adit_testing::{PATIENCE, eventually, skip};

use crate::harness::{ip, run};

/// Where programs are that are unpacked rather than installed, because they would take over the machine that has them.
const UNPACKED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/ci/strangers");
pub(crate) const RESOLVED: &str = "systemd-resolved";
pub(crate) const NETWORKD: &str = "systemd-networkd";
pub(crate) const NETWORK_MANAGER: &str = "NetworkManager";
/// The user of systemd-resolved, where the machine has none, and its number.
const USER: &str = "systemd-resolve";
const NUMBER: u32 = 64_998;

/// Shell command that makes `/proc` that of the host's own processes.
const OWN_PROC: &str = "mount -t proc proc /proc";

/// Anyone on the bus may own and call anything.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=@SOCKET@</listen><auth>EXTERNAL</auth><policy context="default">
<allow user="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>"#;

/// A command that sees the processes of its own host in `/proc`, as programs on a real one do.
pub(crate) fn with_own_proc(command: &Command) -> Command {
    with_own_mounts(OWN_PROC, command)
}

/// A command with mounts of its own, which a shell makes.
fn with_own_mounts(mounts: &str, command: &Command) -> Command {
    let mut wrapped = Command::new("unshare");
    wrapped.args(["--mount", "sh", "-c", &format!(r#"{mounts} && exec "$@""#), "sh"]);
    wrapped.arg(command.get_program()).args(command.get_args());
    wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    wrapped
}

/// A bus, on which services come and go.
pub(crate) struct Bus {
    host: Host,
    socket: PathBuf,
    _daemon: Process,
}

impl Bus {
    /// Starts a bus in a host for these services; where a program is missing, says that the test is skipped.
    pub(crate) fn start_for(host: &Host, services: &[&str]) -> Option<Self> {
        if !is_installed("dbus-daemon") || services.iter().any(|service| find(service).is_none()) {
            skip(format!("needs dbus-daemon and {services:?}; `.ci/run tools` gets these without installing them"));
            return None;
        }
        let (socket, configuration) = (host.folder().join("bus"), host.folder().join("bus.conf"));
        fs::write(&configuration, BUS.replace("@SOCKET@", &socket.to_string_lossy())).unwrap();
        let mut command = Command::new("dbus-daemon");
        command.args(["--nofork", "--nopidfile", "--config-file"]).arg(&configuration);
        let daemon = host.spawn(command).unwrap();
        eventually("the bus is there", || socket.exists().then_some(()));
        run(host, &["chmod", "777", &socket.to_string_lossy()]);
        host.run(make_user);
        Some(Self { host: host.clone(), socket, _daemon: daemon })
    }

    /// The variable by which programs find the bus.
    pub(crate) fn environment(&self) -> (&'static str, String) {
        ("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", self.socket.display()))
    }

    /// Starts systemd-resolved, which remembers nothing of an earlier run, with the lines of `[Resolve]` in its
    /// configuration.
    pub(crate) fn start_resolved(&self, settings: &str) -> Process {
        let settings = format!("[Resolve]\n{settings}\n");
        self.host.run(move || {
            own_folder("/etc/systemd");
            fs::write("/etc/systemd/resolved.conf", settings).unwrap();
        });
        let prepare = format!(
            "rm -rf /run/systemd/resolve && mkdir -p /run/systemd/resolve && chown {NUMBER}:{NUMBER} \
             /run/systemd/resolve && exec {}",
            program(RESOLVED).get_program().to_string_lossy()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &prepare]).envs([self.environment()]);
        let process = self.host.spawn(command).unwrap();
        eventually("systemd-resolved answers", || (self.resolvectl(&["status"]).0 == 0).then_some(()));
        process
    }

    /// Starts systemd-networkd, which configures one link as the file says.
    pub(crate) fn start_networkd(&self, file: &'static str) -> Process {
        const MOUNTS: &str = "mount -o remount,bind,ro /sys && \
            mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp && \
            chown -R systemd-network /run/systemd/netif";
        self.host.run(move || {
            own_folder("/etc/systemd");
            fs::create_dir_all("/etc/systemd/network").unwrap();
            fs::write("/etc/systemd/network/10-link.network", file).unwrap();
        });
        let mut command = program(NETWORKD);
        command.envs([self.environment()]);
        self.host.spawn(with_own_mounts(&format!("{OWN_PROC} && {MOUNTS}"), &command)).unwrap()
    }

    /// Runs `resolvectl`; its exit code and what it printed.
    pub(crate) fn resolvectl(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = program("resolvectl");
        command.args(arguments).envs([self.environment()]);
        let output = self.host.output(command, PATIENCE).unwrap();
        (output.code, output.stdout + &output.stderr)
    }

    /// Has systemd-resolved look a name or address up.
    pub(crate) fn query(&self, name: &str) -> (i32, String) {
        self.resolvectl(&["query", "--legend=no", "--cache=no", name])
    }
}

/// A NetworkManager that manages one link, made for it, and writes the resolver's file.
pub(crate) struct NetworkManager<'a> {
    bus: &'a Bus,
    _daemon: Process,
}

impl<'a> NetworkManager<'a> {
    /// Starts it and has it set its link up, with a name server.
    pub(crate) fn start(bus: &'a Bus, server: &str) -> Self {
        ip(&bus.host, "link add up0 type veth peer name up1");
        ip(&bus.host, "link set up1 up");
        let manager = Self::start_with(bus, "*,except:interface-name:up0", None);
        let link = ["type", "ethernet", "con-name", "uplink", "ifname", "up0", "ipv6.method", "disabled"];
        let addresses = ["ipv4.method", "manual", "ipv4.addresses", "198.18.0.2/24", "ipv4.dns", server];
        manager.nmcli(&[&["connection", "add"][..], &link, &addresses].concat()).unwrap();
        manager.nmcli(&["-w", "10", "connection", "up", "uplink"]).unwrap();
        manager
    }

    /// Starts it for all devices but those that its configuration says it is to leave alone, with a further file of
    /// configuration.
    pub(crate) fn start_with(bus: &'a Bus, unmanaged: &str, further: Option<&Path>) -> Self {
        // A /sys that is read-only says that there is no udev to wait for.
        const MOUNTS: &str = "mount -o remount,bind,ro /sys && mount -t tmpfs tmpfs /var/lib && \
            mkdir -p /var/lib/NetworkManager";
        let configuration = format!(
            "[main]\nplugins=keyfile\nauth-polkit=false\ndns=default\nrc-manager=file\nno-auto-default=*\n\
             systemd-resolved=false\n[keyfile]\npath=/run/nm/connections\nunmanaged-devices={unmanaged}\n"
        );
        let further = further.map(|file| fs::read_to_string(file).unwrap());
        bus.host.run(move || {
            fs::create_dir_all("/run/nm/conf.d").unwrap();
            fs::write("/run/nm/NetworkManager.conf", configuration).unwrap();
            further.into_iter().for_each(|text| fs::write("/run/nm/conf.d/10-further.conf", text).unwrap());
        });
        let mut command = program(NETWORK_MANAGER);
        command.args(["--debug", "--log-level=INFO", "--config=/run/nm/NetworkManager.conf"]);
        command.args([
            "--config-dir=/run/nm/conf.d",
            "--system-config-dir=/run/nm/none",
            "--intern-config=/run/nm/intern",
        ]);
        command.args(["--state-file=/run/nm/state", "--pid-file=/run/nm/pid"]).envs([bus.environment()]);
        let daemon = bus.host.spawn(with_own_mounts(&format!("{OWN_PROC} && {MOUNTS}"), &command)).unwrap();
        let manager = Self { bus, _daemon: daemon };
        eventually("NetworkManager runs", || {
            manager.nmcli(&["-t", "-f", "RUNNING", "general"]).is_some_and(|text| text == "running\n").then_some(())
        });
        manager
    }

    /// How it stands to a device; `None` while it does not know the device.
    pub(crate) fn state_of(&self, device: &str) -> Option<String> {
        let listed = self.nmcli(&["-t", "-f", "DEVICE,STATE", "device"])?;
        let state = |line: &str| line.strip_prefix(&format!("{device}:")).map(str::to_owned);
        listed.lines().find_map(state)
    }

    /// Gives its link another name server.
    pub(crate) fn set_server(&self, server: &str) {
        self.nmcli(&["connection", "modify", "uplink", "ipv4.dns", server]).unwrap();
        self.nmcli(&["-w", "10", "device", "reapply", "up0"]).unwrap();
    }

    fn nmcli(&self, arguments: &[&str]) -> Option<String> {
        let mut command = program("nmcli");
        command.args(arguments).envs([self.bus.environment()]);
        self.bus.host.output(command, PATIENCE).unwrap().success().ok()
    }
}

/// Gives systemd-resolved the user that it becomes.
fn make_user() {
    for (file, line) in [
        ("/etc/passwd", format!("{USER}:x:{NUMBER}:{NUMBER}::/:/bin/false\n")),
        ("/etc/group", format!("{USER}:x:{NUMBER}:\n")),
    ] {
        let text = fs::read_to_string(file).unwrap();
        let others = text.lines().filter(|line| !line.starts_with(USER)).map(|line| format!("{line}\n"));
        let text = others.collect::<String>() + &line;
        fs::remove_file(file).unwrap();
        fs::write(file, text).unwrap();
    }
}

/// A dnsmasq that gives every name one address.
pub(crate) struct NameServer(Process);

impl NameServer {
    /// Starts it at an address of a host; without the program, says that the test is skipped.
    pub(crate) fn start(host: &Host, address: impl Into<IpAddr>, answer: &str) -> Option<Self> {
        Self::start_for(host, address, &[("#", answer)])
    }

    /// As [`Self::start`], with an answer for each domain.
    pub(crate) fn start_for(host: &Host, address: impl Into<IpAddr>, answers: &[(&str, &str)]) -> Option<Self> {
        if !is_installed("dnsmasq") {
            skip("needs the program dnsmasq");
            return None;
        }
        let mut command = Command::new("dnsmasq");
        command.args(["--keep-in-foreground", "--no-hosts", "--no-resolv", "--conf-file=/dev/null", "--user=root"]);
        command.args(["--bind-interfaces", "--log-queries", "--log-facility=-"]);
        command.arg(format!("--pid-file={}", host.folder().join("dnsmasq.pid").display()));
        command.arg(format!("--listen-address={}", address.into()));
        command.args(answers.iter().map(|(domain, answer)| format!("--address=/{domain}/{answer}")));
        let process = host.spawn(command).unwrap();
        process.wait_for_line("started", PATIENCE).unwrap();
        Some(Self(process))
    }

    /// Whether it was asked about a name.
    pub(crate) fn was_asked(&self, name: &str) -> bool {
        self.0.stderr().lines().any(|line| line.contains("query[") && line.contains(&format!(" {name} ")))
    }
}

/// Makes a folder of the host's own in the place of the machine's.
pub(crate) fn own_folder(path: &str) {
    if Path::new(path).is_symlink() {
        fs::remove_file(path).unwrap();
    }
    fs::create_dir_all(path).unwrap();
}

/// A program of the machine, or one that is unpacked.
fn find(name: &str) -> Option<PathBuf> {
    let folders = ["usr/bin", "usr/sbin", "usr/lib/systemd", "lib/systemd"];
    let roots = [Path::new("/"), Path::new(UNPACKED)];
    let places = roots.iter().flat_map(|root| folders.iter().map(move |folder| root.join(folder).join(name)));
    places.into_iter().find(|place| place.exists())
}

/// A command of [`find`], which finds the libraries that are unpacked with it.
fn program(name: &str) -> Command {
    let path = find(name).unwrap();
    let mut command = Command::new(&path);
    if path.starts_with(UNPACKED) {
        let folders = fs::read_dir(Path::new(UNPACKED).join("usr/lib")).unwrap();
        let libraries = folders
            .map(|folder| folder.unwrap().path())
            .find(|folder| folder.to_string_lossy().ends_with("-linux-gnu"));
        command.envs(libraries.map(|folder| ("LD_LIBRARY_PATH", folder)));
    }
    command
}

pub(crate) fn is_installed(program: &str) -> bool {
    find(program).is_some()
}
