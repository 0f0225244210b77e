//! A transport on which a request waits for the test.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pouch_client::Party;
use pouch_client::transport::{Answer, HttpRequest, Https, Network, Transport};
use tokio::sync::Notify;

/// Passes everything on, but holds one kind of request until it is let go.
pub struct Holding {
    inner: Https,
    /// Their method, and what their target has behind the bundle's id.
    which: (&'static str, &'static str),
    /// How many of them get through before.
    left: AtomicUsize,
    /// One is held.
    pub held: Notify,
    /// The bundle of the last one that was held.
    pub bundle: Mutex<String>,
    /// Lets it go.
    pub go: Notify,
}

impl Holding {
    /// Holds requests of `party` with this method and this end of the target, but for the first `left` of them.
    #[must_use]
    pub fn new(party: &Party, which: (&'static str, &'static str), left: usize) -> Arc<Self> {
        let inner = Https::new(party.relay().clone(), party.relay_pins(), &Network::default()).unwrap();
        let (held, bundle, go) = (Notify::new(), Mutex::default(), Notify::new());
        Arc::new(Self { inner, which, left: AtomicUsize::new(left), held, bundle, go })
    }

    /// The bundle of this request, if it is to wait.
    fn holds(&self, request: &HttpRequest) -> Option<String> {
        let (method, behind) = self.which;
        let path = request.target.strip_suffix(behind).filter(|_| request.method == method)?;
        let passes = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if passes { None } else { Some(path.rsplit('/').next().unwrap().to_owned()) }
    }
}

impl Transport for Holding {
    fn call(&self, request: HttpRequest) -> Answer<'_> {
        Box::pin(async move {
            if let Some(bundle) = self.holds(&request) {
                *self.bundle.lock().unwrap() = bundle;
                self.held.notify_one();
                self.go.notified().await;
            }
            self.inner.call(request).await
        })
    }
}
