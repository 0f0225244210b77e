//! Peers that need servers of their own: magic-wormhole with its mailbox and its transit relay, OpenSSH with its daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Failure;
use crate::process::printed;
use crate::server::Server;
use crate::tools::Tool;

/// magic-wormhole by relay: sender and receiver do not listen themselves.
pub(crate) struct Wormhole {
    program: PathBuf,
    mailbox: Server,
    transit: Server,
}

impl Wormhole {
    pub(crate) fn start(wormhole: &Tool, twistd: &Tool, folder: &Path) -> Result<Self, Failure> {
        let root = folder.join("wormhole");
        fs::create_dir_all(&root)?;
        let serve = |plugin: &'static str| {
            Server::start(plugin, |port| {
                let mut command = Command::new(&twistd.path);
                command.arg("-n").arg("--pidfile").arg(root.join(format!("{plugin}.pid"))).arg(plugin);
                command.arg(format!("--port=tcp:{port}:interface=127.0.0.1")).current_dir(&root);
                command.stderr(Stdio::null());
                Ok(command)
            })
        };
        Ok(Self {
            program: wormhole.path.clone(),
            mailbox: serve("wormhole-mailbox")?,
            transit: serve("transitrelay")?,
        })
    }

    /// Both ends at once, `what` to `out`.
    pub(crate) fn carry(&self, what: &Path, out: &Path, round: u32) -> Command {
        let script = format!(
            "w=$1; shift\n\
             w() {{ \"$w\" --relay-url ws://127.0.0.1:{}/v1 --transit-helper tcp:127.0.0.1:{} \"$@\"; }}\n\
             w send --no-listen --hide-progress --code {round}-bench-mark \"$1\" & \n\
             w receive --no-listen --hide-progress --accept-file -o \"$2\" {round}-bench-mark && wait $!",
            self.mailbox.port(),
            self.transit.port(),
        );
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg("sh").arg(&self.program).arg(what).arg(out);
        command
    }
}

/// `scp` and `ssh` to a daemon on this machine.
pub(crate) struct Ssh {
    daemon: Server,
    folder: PathBuf,
}

impl Ssh {
    pub(crate) fn start(sshd: &Tool, folder: &Path) -> Result<Self, Failure> {
        let root = folder.join("ssh");
        fs::create_dir_all(&root)?;
        for name in ["host", "key"] {
            let mut keygen = Command::new("ssh-keygen");
            printed(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(root.join(name)), "")?;
        }
        fs::copy(root.join("key.pub"), root.join("authorized"))?;
        fs::set_permissions(root.join("authorized"), fs::Permissions::from_mode(0o600))?;
        if rustix::process::getuid().is_root() {
            // Where a daemon of root confines its unprivileged half.
            let _ = fs::create_dir_all("/run/sshd");
        }
        let daemon = Server::start("sshd", |port| {
            let text = format!(
                "ListenAddress 127.0.0.1\nPort {port}\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized\n\
                 StrictModes no\nPidFile none\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n\
                 Subsystem sftp internal-sftp\n",
                root.display()
            );
            fs::write(root.join("config"), text)?;
            let mut command = Command::new(&sshd.path);
            command.args(["-D", "-f"]).arg(root.join("config")).stderr(Stdio::null());
            Ok(command)
        })?;
        Ok(Self { daemon, folder: root })
    }

    /// The options that both clients know, as words for a shell.
    fn options(&self) -> String {
        format!(
            "-q -i {}/key -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
            self.folder.display()
        )
    }

    /// `scp` with a cipher, or with what the two agree on.
    pub(crate) fn copy(&self, file: &Path, out: &Path, cipher: Option<&str>) -> Command {
        let cipher = cipher.map(|cipher| format!("-c {cipher}")).unwrap_or_default();
        let script = format!("scp {} {cipher} -P {} \"$1\" \"127.0.0.1:$2\"", self.options(), self.daemon.port());
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg("sh").arg(file).arg(out);
        command
    }

    /// `tar | ssh | tar`.
    pub(crate) fn unpack(&self, folder: &Path, out: &Path) -> Command {
        let script = format!(
            "mkdir \"$2\" && tar c -C \"$1\" . | ssh {} -p {} 127.0.0.1 \"tar x -C '$2'\"",
            self.options(),
            self.daemon.port()
        );
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg("sh").arg(folder).arg(out);
        command
    }
}
