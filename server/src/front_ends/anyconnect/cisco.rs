//! What Cisco's own clients ask for on top, as it is known from other gateways that serve them. It has not been tried
//! with one.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use data_encoding::HEXUPPER;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use crate::listener::Answer;

/// A list of files that has none: neither programs nor profiles nor translations come from here.
const NOTHING: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<vpn rev=\"1.0\"></vpn>\n";
/// The pages of platforms, which say by being there that they are served.
const PLATFORM: &str = "<!doctype html><html lang=\"en\"><title>VPN</title></html>\n";

/// What is at a path where these clients look for something newer than they are.
pub(super) fn file(path: &str) -> Option<Answer> {
    let (media_type, body) = match path {
        "/VPNManifest.xml" | "/1/VPNManifest.xml" => ("text/xml", NOTHING),
        "/1/binaries/update.txt" => ("text/plain", "0,0,0000\n"),
        "/1/binaries/vpndownloader.sh" => ("text/plain", "#!/bin/sh\n\nexit 0\n"),
        "/1/index.html" | "/1/Linux" | "/1/Linux_64" | "/1/Windows" | "/1/Windows_ARM64" | "/1/Darwin_i386" => {
            ("text/html", PLATFORM)
        }
        _ if path.starts_with("/+CSCOT+/translation-table") || path.starts_with("/+CSCOT+/oem-customization") => {
            ("text/xml", NOTHING)
        }
        _ => return None,
    };
    let mut answer = Answer::new(body.into());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    Some(answer)
}

/// How these clients name a certificate: by its SHA-1, which proves nothing here.
pub(super) fn fingerprint(certificate: &[u8]) -> String {
    HEXUPPER.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, certificate).as_ref())
}

/// The cookie by which a client learns at the end of a login what the gateway is called and shows.
pub(super) fn description(fingerprint: &str) -> String {
    format!("webvpnc=bu:/&p:t&iu:1/&sh:{fingerprint}; Path=/; Secure")
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn nothing_newer_is_to_be_had_and_nothing_else_is_there() {
        for (path, body) in [
            ("/1/VPNManifest.xml", NOTHING),
            ("/+CSCOT+/translation-table", NOTHING),
            ("/1/binaries/update.txt", "0,0,0000\n"),
            ("/1/Linux_64", PLATFORM),
        ] {
            let found = file(path).unwrap().into_body().collect().await.unwrap().to_bytes();
            assert_eq!(found, body, "{path}");
        }
        for path in ["/", "/1/", "/1/binaries/", "/1/binaries/x", "/profiles/x.xml", "/x/VPNManifest.xml"] {
            assert!(file(path).is_none(), "{path}");
        }
    }

    #[test]
    fn certificate_is_named_by_its_sha_1() {
        let abc = "A9993E364706816ABA3E25717850C26C9CD0D89D";
        assert_eq!(fingerprint(b"abc"), abc);
        assert_eq!(description(abc), format!("webvpnc=bu:/&p:t&iu:1/&sh:{abc}; Path=/; Secure"));
    }
}
