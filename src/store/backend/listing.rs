//! Whether an answer to "list" is a listing.
//!
//! To the clients' parsers any page is one, of nothing: a proxy's "come back later", or an error with status 200. An empty
//! listing hides what is there, so the name of the page's outermost element is looked at first.

use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse};

/// The outermost elements of listings: of S3 and GCS, and of Azure.
const ROOTS: [&str; 2] = ["ListBucketResult", "EnumerationResults"];

/// Something else came, which begins so.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" came in place of a listing")]
struct NoListing(String);

/// Whether `request` asks for one.
pub(super) fn is_asked_by(request: &HttpRequest) -> bool {
    let parameters = request.uri().query().unwrap_or_default();
    request.method().as_str() == "GET" && parameters.split('&').any(|one| matches!(one, "list-type=2" | "comp=list"))
}

/// The answer, if it is a listing or says by its status that it is none.
pub(super) async fn checked(answer: HttpResponse) -> Result<HttpResponse, HttpError> {
    if !answer.status().is_success() {
        return Ok(answer);
    }
    let (head, body) = answer.into_parts();
    let page = body.bytes().await?;
    match root(&page) {
        Some(root) if ROOTS.iter().any(|known| root == known.as_bytes()) => {
            Ok(HttpResponse::from_parts(head, page.into()))
        }
        found => {
            let found = found.unwrap_or(&page);
            let shown = found.get(..40).unwrap_or(found).escape_ascii();
            Err(HttpError::new(HttpErrorKind::Decode, NoListing(shown.to_string())))
        }
    }
}

/// The name of the outermost element of an XML document.
fn root(page: &[u8]) -> Option<&[u8]> {
    // Before it stand declarations and comments. One that holds this sign itself makes a page that is refused.
    let mut elements = page.split(|byte| *byte == b'<').skip(1);
    let element = elements.find(|element| !element.starts_with(b"?") && !element.starts_with(b"!"))?;
    element.split(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'/' | b'>')).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_found_behind_what_may_stand_before_them() {
        for (page, found) in [
            ("<ListBucketResult xmlns=\"x\"><Name>b</Name></ListBucketResult>", Some("ListBucketResult")),
            ("<?xml version=\"1.0\"?>\n<!-- a -->\n<Error><Code>SlowDown</Code></Error>", Some("Error")),
            ("\u{feff}<?xml version=\"1.0\"?><EnumerationResults/>", Some("EnumerationResults")),
            ("<!DOCTYPE html><html lang=\"en\">", Some("html")),
            ("Service unavailable", None),
            ("", None),
        ] {
            assert_eq!(root(page.as_bytes()), found.map(str::as_bytes), "{page}");
        }
    }
}
