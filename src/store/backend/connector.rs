//! The clients' connection to their server, which keeps the server's respite and believes no page that is no listing.
//!
//! Clients hand out no headers with their errors, so `Retry-After` is read here. While a respite lasts nothing is sent, so
//! that what a client tries again by itself cannot come too early either: it is told that its request was not sent, in a way
//! in which it gives up.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

use super::{listing, retry_after};
use crate::base::Env;
use crate::store::respite::Respite;
use crate::store::unreached::{self, Unreached};

/// Makes connections that share one respite.
#[derive(Debug)]
pub(super) struct Connector {
    respite: Arc<Respite>,
    env: Env,
}

impl Connector {
    pub(super) fn new(respite: &Arc<Respite>) -> Connector {
        Connector { respite: Arc::clone(respite), env: Env::system() }
    }

    fn around(&self, client: HttpClient) -> HttpClient {
        HttpClient::new(Connection { client, respite: Arc::clone(&self.respite), env: self.env.clone() })
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.around(ReqwestConnector::default().connect(options)?))
    }
}

#[derive(Debug)]
struct Connection {
    client: HttpClient,
    respite: Arc<Respite>,
    env: Env,
}

#[async_trait]
impl HttpService for Connection {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // Of the kinds of errors only this one is never tried again below.
        self.respite.over().await.map_err(|left_alone| HttpError::new(HttpErrorKind::Unknown, left_alone))?;
        let lists = listing::is_asked_by(&request);
        let server = server(&request);
        let response = self.client.execute(request).await.map_err(|error| match error.kind() {
            HttpErrorKind::Connect => {
                let cause = unreached::deepest(&error);
                HttpError::new(HttpErrorKind::Connect, Unreached { server, cause })
            }
            _ => error,
        })?;
        if matches!(response.status().as_u16(), 429 | 503)
            && let Some(wait) = retry_after::wait(response.headers(), self.env.now())
        {
            tracing::debug!(status = response.status().as_u16(), ?wait, "the server asks to be left alone");
            self.respite.ask(wait);
        }
        if lists { listing::checked(response).await } else { Ok(response) }
    }
}

/// `https://host:port`: no path, and no signature.
fn server(request: &HttpRequest) -> String {
    let uri = request.uri();
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    format!("{}://{}", uri.scheme_str().unwrap_or_default(), authority.rsplit('@').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use object_store::HeaderValue;
    use object_store::client::{HttpRequestBody, HttpResponseBody};

    use super::*;
    use crate::store::respite::in_client;

    /// Asks for a second with its first answer, and counts.
    #[derive(Debug, Clone, Default)]
    struct Busy(Arc<AtomicUsize>);

    #[async_trait]
    impl HttpService for Busy {
        async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
            let mut response = HttpResponse::new(HttpResponseBody::from("busy".to_owned()));
            if self.0.fetch_add(1, Ordering::SeqCst) == 0 {
                *response.status_mut() = 503.try_into().unwrap();
                response.headers_mut().insert("retry-after", HeaderValue::from_static("1"));
            }
            Ok(response)
        }
    }

    #[test]
    fn nothing_is_sent_while_the_server_wants_to_be_left_alone() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (busy, respite) = (Busy::default(), Arc::new(Respite::default()));
            let client = Connector::new(&respite).around(HttpClient::new(busy.clone()));
            // Another connection of the same store.
            let other = Connector::new(&respite).around(HttpClient::new(busy.clone()));
            let request = || HttpRequest::new(HttpRequestBody::empty());
            assert_eq!(client.execute(request()).await.unwrap().status().as_u16(), 503);
            let begun = tokio::time::Instant::now();
            for client in [&client, &other] {
                let error = client.execute(request()).await.unwrap_err();
                assert_eq!(error.kind(), HttpErrorKind::Unknown, "a client tries again what is of any other kind");
                assert!(error.to_string().contains("asked to be left alone"), "{error}");
            }
            assert_eq!(busy.0.load(Ordering::SeqCst), 1);
            let patient = in_client(begun + Duration::from_secs(60), other.execute(request()));
            assert_eq!(patient.await.unwrap().status().as_u16(), 200);
            assert!(begun.elapsed() > Duration::from_millis(900));
        });
    }
}
