//! nginx over TLS 1.3 as somewhere to PUT a file to and GET it from, with curl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::server::Server;
use crate::tools::Tool;

/// A server of its own, in a folder.
pub(crate) struct Nginx {
    server: Server,
    folder: PathBuf,
}

impl Nginx {
    pub(crate) fn start(nginx: &Tool, folder: &Path) -> Result<Self, Failure> {
        let root = folder.join("nginx");
        for name in ["files", "body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            fs::create_dir_all(root.join(name))?;
        }
        let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        fs::write(root.join("cert.pem"), key.cert.pem())?;
        fs::write(root.join("key.pem"), key.signing_key.serialize_pem())?;
        let configuration = root.join("conf");
        fs::create_dir_all(&configuration)?;
        let server = Server::start("nginx", |port| {
            let text = format!(
                "daemon off; pid nginx.pid; error_log stderr crit; worker_processes auto; events {{}}\n\
                 http {{ access_log off; client_max_body_size 0; client_body_temp_path body; proxy_temp_path proxy;\n\
                 fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
                 server {{ listen 127.0.0.1:{port} ssl; ssl_certificate ../cert.pem; ssl_certificate_key ../key.pem;\n\
                 ssl_protocols TLSv1.3; root files; location / {{ dav_methods PUT; }} }} }}\n"
            );
            fs::write(configuration.join("nginx.conf"), text)?;
            // Workers of a server that root starts are somebody else's otherwise.
            let user = if rustix::process::getuid().is_root() { "user root;" } else { "" };
            let mut command = Command::new(&nginx.path);
            command.arg("-p").arg(&root).args(["-c", "conf/nginx.conf", "-g", user]);
            Ok(command)
        })?;
        Ok(Self { server, folder: root })
    }

    fn curl(&self, curl: &Tool) -> Command {
        let mut command = Command::new(&curl.path);
        command.args(["-sSf", "--http1.1", "--tlsv1.3", "--noproxy", "*", "--cacert"]);
        command.arg(self.folder.join("cert.pem"));
        command
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}/file", self.server.port())
    }

    /// `curl -T FILE`.
    pub(crate) fn put(&self, curl: &Tool, file: &Path) -> Command {
        let mut command = self.curl(curl);
        command.arg("-T").arg(file).arg(self.url());
        command
    }

    /// `curl` of the file, as part of a shell's pipe: what it is sent, or what it brings.
    pub(crate) fn piped(&self, curl: &Tool, words: &str) -> String {
        let command = self.curl(curl);
        let mut all: Vec<_> = command.get_args().map(|word| format!("'{}'", word.to_string_lossy())).collect();
        all.insert(0, curl.path.display().to_string());
        format!("{} {words} {}", all.join(" "), self.url())
    }

    /// `curl` of the same file, thrown away.
    pub(crate) fn get(&self, curl: &Tool) -> Command {
        let mut command = self.curl(curl);
        command.args(["-o", "/dev/null"]).arg(self.url());
        command
    }
}
