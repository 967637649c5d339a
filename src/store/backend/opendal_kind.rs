//! What OpenDAL says of a failure, which arrives in a kind of `object_store`'s errors that says nothing.

use opendal::ErrorKind;

use crate::base::Class;

/// The class of the failure behind `error`, where OpenDAL's kind tells it.
pub(crate) fn class(error: &(dyn std::error::Error + 'static)) -> Option<Class> {
    match within(error)?.kind() {
        ErrorKind::PermissionDenied => Some(Class::Denied),
        ErrorKind::Unsupported => Some(Class::Unsupported),
        ErrorKind::ConfigInvalid => Some(Class::Invalid),
        ErrorKind::RateLimited => Some(Class::Transient),
        _ => None,
    }
}

/// Whether `error` is any answer 404: OpenDAL takes all of them for "there is no such object".
pub(crate) fn is_any_404(error: &(dyn std::error::Error + 'static)) -> bool {
    within(error).is_some_and(|error| error.kind() == ErrorKind::NotFound)
}

fn within<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e opendal::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<opendal::Error>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Classed;
    use crate::store::error::StoreError;
    use crate::store::meter::Operation;

    #[test]
    fn a_failure_has_the_class_of_its_kind() {
        for (kind, class) in [
            (ErrorKind::PermissionDenied, Class::Denied),
            (ErrorKind::ConfigInvalid, Class::Invalid),
            (ErrorKind::RateLimited, Class::Transient),
            (ErrorKind::Unexpected, Class::Transient),
        ] {
            let source = Box::new(opendal::Error::new(kind, "so it says"));
            let error = object_store::Error::Generic { store: "OSS", source };
            assert_eq!(StoreError::reported(Operation::Get, "x", error).class(), class, "{kind}");
        }
    }

    #[test]
    fn only_the_store_s_own_word_is_absence() {
        for (message, class) in [
            ("OssError { code: \"NoSuchKey\", message: \"\" }", Class::NotFound),
            ("OssError { code: \"NoSuchBucket\", message: \"\" }", Class::Invalid),
            ("<html>404</html>", Class::Invalid),
        ] {
            let source = opendal::Error::new(ErrorKind::NotFound, message).with_context("uri", "http://h/b/NoSuchKey");
            let error = object_store::Error::NotFound { path: "x".into(), source: Box::new(source) };
            let error = StoreError::reported(Operation::Get, "x", error);
            assert_eq!(error.class(), class, "{error}");
        }
    }
}
