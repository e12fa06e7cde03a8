//! A real systemd runs the unit as it is shipped: in namespaces of its own, with the machine's files under an overlay, so
//! that nothing of it stays. That takes root and a kernel that lets cgroups be made; where it cannot be had, a line says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;
use voiced_lab::phone::{Outcome, Sign};
use voiced_lab::providers::Script;
use voiced_models_local::weights::Weights;

use crate::caller::{call, conversation, listen, say, script, wait_for};
use crate::host::{AUTH_TOKEN, Host, free_port};
use crate::{story, until};

/// Joins a cgroup of its own, then starts systemd as the first process of new namespaces.
const BEGIN: &str = r#"
cgroups=/sys/fs/cgroup
[ -f $cgroups/cgroup.procs ] || cgroups=$cgroups/unified
mkdir "$cgroups/$NAME"
echo $$ > "$cgroups/$NAME/cgroup.procs"
exec unshare --pid --fork --kill-child --mount --cgroup --ipc --uts sh -euc "$INSIDE"
"#;
/// The root is an overlay whose changes are kept in memory, and the only units are ours: systemd's own would tidy up and
/// set up the machine.
const INSIDE: &str = r#"
mount --make-rprivate /
over=$FOLDER/over root=$FOLDER/over/root
mkdir "$over"
mount -t tmpfs tmpfs "$over"
mkdir "$over/upper" "$over/work" "$root"
mount -t overlay -o "lowerdir=/,upperdir=$over/upper,workdir=$over/work" overlay "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
for folder in run tmp var/tmp usr/lib/systemd/system usr/lib/systemd/system-generators usr/local; do
    mount -t tmpfs tmpfs "$root/$folder"
done
rm -rf "$root/etc/systemd/system"
cp -r "$FOLDER/etc/." "$root/etc"
mkdir -p "$root/usr/local/bin" "$root/run/out" "$root/var/cache/private/voiced"
chmod 700 "$root/var/cache/private"
cp -r "$WEIGHTS" "$root/var/cache/private/voiced/models"
touch "$root/usr/local/bin/voiced"
mount --bind "$VOICED" "$root/usr/local/bin/voiced"
mount --bind "$FOLDER/out" "$root/run/out"
mkdir "$root/run/old"
cd "$root"
pivot_root . run/old
cd /
umount -l /run/old
mount --make-rshared /
exec env -i PATH="$PATH" container=other /usr/lib/systemd/systemd --system --unit=nothing.target --show-status=no
"#;
/// Leaves no cgroup behind; those of processes that are just ending cannot be removed yet.
const END: &str = r#"
for cgroup in /sys/fs/cgroup/$NAME /sys/fs/cgroup/unified/$NAME; do
    for try in 1 2 3 4 5 6 7 8 9; do
        [ -d "$cgroup" ] && { find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1; }
    done
done"#;
/// What our units are ordered by, as targets that bring nothing.
const TARGETS: [&str; 8] = ["nothing", "sysinit", "basic", "sockets", "shutdown", "network", "network-online", "multi-user"];
const BARE: &str = "[Unit]\nDefaultDependencies=no\n";

/// Every process of the daemon stands still.
const HANG: &str = r#"for process in /proc/[0-9]*; do [ "$(cat $process/comm)" = voiced ] && kill -STOP ${process#/proc/}; done; true"#;

struct Systemd {
    name: String,
    folder: TempDir,
    namespaces: Child,
}

impl Systemd {
    /// Starts it with the host's settings; an error says what the machine lacks.
    async fn boot(host: &Host, address: &str) -> Result<Self, String> {
        let folder = TempDir::new().expect("a folder");
        let name = format!("voiced-test-{}", std::process::id());
        fs::create_dir(folder.path().join("out")).expect("a folder");
        units(&folder.path().join("etc"), host, address);
        let log = fs::File::create(folder.path().join("systemd.log")).expect("a file");
        let mut command = Command::new("sh");
        command.args(["-euc", BEGIN]).env("NAME", &name).env("INSIDE", INSIDE).env("FOLDER", folder.path());
        command.env("VOICED", env!("CARGO_BIN_EXE_voiced")).env("WEIGHTS", Weights::default_dir());
        let namespaces = command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log).spawn().expect("a shell");
        let mut systemd = Self { name, folder, namespaces };
        let mut up = false;
        until("systemd is up, or its namespaces are refused", async || {
            up = systemd.ctl(&["is-active", "nothing.target"]).is_ok_and(|told| told.stdout == b"active\n");
            up || systemd.namespaces.try_wait().expect("a child").is_some()
        })
        .await;
        if up { Ok(systemd) } else { Err(fs::read_to_string(systemd.folder.path().join("systemd.log")).unwrap_or_default()) }
    }

    /// `systemctl`.
    fn ctl(&self, arguments: &[&str]) -> Result<Output, String> {
        self.enter(&[&["systemctl", "--no-pager"], arguments].concat())
    }

    /// Runs a program in the namespaces.
    fn enter(&self, program: &[&str]) -> Result<Output, String> {
        let children = format!("/proc/{0}/task/{0}/children", self.namespaces.id());
        let first = fs::read_to_string(children).map_err(|error| error.to_string())?;
        let first = first.split_whitespace().next().ok_or("no first process")?;
        let namespaces = ["-t", first, "-m", "-p", "-i", "-u", "-C", "-r"];
        Command::new("nsenter").args(namespaces).args(program).output().map_err(|error| error.to_string())
    }

    /// What the daemon has logged.
    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("out/voiced.log")).unwrap_or_default()
    }

    fn status(&self) -> String {
        let show = ["show", "-p", "Result,ExecMainStatus,ExecMainCode,StatusText", "voiced.service", "voiced.socket"];
        self.ctl(&show).map_or_else(|error| error, |told| String::from_utf8_lossy(&told.stdout).into_owned())
    }

    fn must(&self, arguments: &[&str]) -> String {
        let told = self.ctl(arguments).expect("systemctl");
        let words = String::from_utf8_lossy(&told.stdout).into_owned() + &String::from_utf8_lossy(&told.stderr);
        assert!(told.status.success(), "{arguments:?}: {words}{}", self.status());
        words
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        let _ = self.namespaces.kill();
        let _ = self.namespaces.wait();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        let _ = Command::new("sh").args(["-c", END]).env("NAME", &self.name).status();
    }
}

/// The shipped units, and what an operator adds: settings, a key as a credential, and here a port and a log of the test's own.
fn units(etc: &Path, host: &Host, address: &str) {
    let shipped = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../systemd");
    let write = |path: &str, text: &str| {
        let path = etc.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    };
    for unit in ["voiced.service", "voiced.socket"] {
        write(&format!("systemd/system/{unit}"), &fs::read_to_string(shipped.join(unit)).expect("a unit"));
    }
    for target in TARGETS {
        write(&format!("systemd/system/{target}.target"), BARE);
    }
    write("systemd/system/voiced.socket.d/port.conf", &format!("[Socket]\nListenStream=\nListenStream={address}\n"));
    let log = "StandardOutput=null\nStandardError=append:/run/out/voiced.log";
    // patience enough for a busy machine, and little for a test
    let watchdog = "WatchdogSec=4";
    let key = "LoadCredential=twilio_auth_token:/etc/voiced/keys/twilio_auth_token";
    write("systemd/system/voiced.service.d/test.conf", &format!("[Service]\n{watchdog}\n{key}\n{log}\n"));
    write("voiced/keys/twilio_auth_token", AUTH_TOKEN);
    write("voiced/voiced.toml", "");
    let own = ["HOME", "PATH", "STATE_DIRECTORY", "CACHE_DIRECTORY", "XDG_CACHE_HOME", "PORT", "VOICED_SERVER__BIND", "TWILIO_AUTH_TOKEN"];
    let settings = host.environment().iter().filter(|(name, _)| !own.contains(&name.as_str()));
    let lines: Vec<String> = settings.map(|(name, value)| format!("{name}=\"{value}\"\n")).collect();
    write("voiced/environment", &lines.concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_real_systemd_the_unit_works_as_shipped_and_its_restart_loses_no_call() {
    let address = format!("127.0.0.1:{}", free_port());
    let host = Host::elsewhere(&address, Script::default(), &[]).await;
    let systemd = match Systemd::boot(&host, &address).await {
        Ok(systemd) => systemd,
        // containers seldom may: CI goes without, too
        Err(why) => return eprintln!("skipped, in CI too: no systemd of one's own can be had here: {why}"),
    };
    systemd.must(&["start", "voiced.socket", "voiced.service"]);
    let main = || systemd.must(&["show", "-p", "MainPID", "voiced.service"]);
    let (phone, answered, before) = (host.phone(), Sign::default(), main());
    let lines = [listen(), say("My kitchen sink is leaking."), listen(), wait_for(&answered), say("It is in the kitchen."), listen()];
    let talking = call(&phone, script(lines));
    let restart = async {
        until("the call", async || !host.calls().await.is_empty()).await;
        tokio::task::block_in_place(|| systemd.must(&["restart", "voiced.service"]));
        assert_ne!(main(), before, "another process");
        assert!(systemd.log().contains("draining"), "the former one lets its calls end");
        let fresh = call(&phone, conversation(&["My kitchen sink is leaking."])).await;
        assert_eq!(fresh.outcome, Outcome::CallerHungUp);
        answered.give();
        fresh
    };
    let (talking, fresh) = tokio::join!(talking, restart);
    assert_eq!(talking.outcome, Outcome::CallerHungUp, "it ended as the caller wished");
    assert!(talking.utterances.iter().all(|said| said.response_ms.is_some()), "{:?}", talking.utterances);
    assert_eq!(story::of(&host, &talking.call_sid).await.said().len(), 5);
    assert_eq!(story::of(&host, &fresh.call_sid).await.said().len(), 3);
    // a daemon that hangs amid a call
    let (before, forever) = (main(), Sign::default());
    let (cut_off, ()) = tokio::join!(call(&phone, script([listen(), wait_for(&forever)])), async {
        until("the call", async || !host.calls().await.is_empty()).await;
        systemd.enter(&["sh", "-c", HANG]).expect("a process");
        until("another process answers", async || main() != before && host.get("/health").await.0 == 200).await;
    });
    assert_eq!(cut_off.outcome, Outcome::AgentHungUp);
    story::of(&host, &cut_off.call_sid).await;
    systemd.must(&["stop", "voiced.service"]);
    assert_eq!(systemd.must(&["show", "-p", "Result", "voiced.service"]).trim(), "Result=success");
}
