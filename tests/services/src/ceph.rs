//! A Ceph that `tests/services/ceph` started for all tests; `POUCH_CEPH` names its folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::missing;

/// One of its gateways. Tests run at the same time and share it: each has a prefix of its own.
pub struct Ceph {
    folder: PathBuf,
    number: usize,
    /// `http://127.0.0.1:PORT`
    pub endpoint: String,
    /// The access key's id and the key.
    pub id: String,
    pub secret: String,
}

impl Ceph {
    /// The bucket that is there.
    pub const BUCKET: &str = "pouch";

    /// The gateway that is always there; `None`, and said, where there is no Ceph.
    #[must_use]
    pub fn shared() -> Option<Self> {
        Self::gateway(0)
    }

    /// The gateway that may be stopped, by one test of each program: these run one after the other.
    #[must_use]
    pub fn fragile() -> Option<Self> {
        Self::gateway(1)
    }

    fn gateway(number: usize) -> Option<Self> {
        let Some(folder) = std::env::var_os("POUCH_CEPH").filter(|folder| !folder.is_empty()).map(PathBuf::from) else {
            missing("POUCH_CEPH names no Ceph (tests/services/ceph)");
            return None;
        };
        let service = std::fs::read_to_string(folder.join("service")).expect("POUCH_CEPH names the folder of a Ceph");
        let mut lines = service.lines();
        let (id, secret) = lines.next().unwrap().split_once(' ').unwrap();
        let endpoint = lines.nth(number).unwrap().to_owned();
        Some(Self { folder, number, endpoint, id: id.to_owned(), secret: secret.to_owned() })
    }

    /// The line of `relay.toml` for its bucket; the key lies in a new file.
    #[must_use]
    pub fn config(&self, prefix: &str, key: &Path) -> String {
        std::fs::write(key, format!("{}\n", self.secret)).unwrap();
        let Self { endpoint, id, .. } = self;
        let bucket = Self::BUCKET;
        let key = key.display();
        format!(
            "blobs = {{ endpoint = \"{endpoint}\", bucket = \"{bucket}\", prefix = \"{prefix}\", \
             access_key_id = \"{id}\", secret_access_key_file = \"{key}\" }}"
        )
    }

    fn switch(&self, to: &str) -> bool {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("ceph");
        let mut command = Command::new(script);
        command.arg("gateway").arg(&self.folder).args([&self.number.to_string(), to]);
        command.status().is_ok_and(|status| status.success())
    }

    /// Stops the gateway until the outage is dropped.
    ///
    /// # Panics
    /// When it does not stop.
    #[must_use]
    pub fn outage(&self) -> Outage<'_> {
        assert!(self.switch("stop"), "the gateway does not stop");
        Outage(self)
    }
}

/// A gateway that is stopped.
pub struct Outage<'a>(&'a Ceph);

impl Drop for Outage<'_> {
    fn drop(&mut self) {
        assert!(self.0.switch("start") || std::thread::panicking(), "the gateway does not start again");
    }
}
