use proptest::prelude::*;
use quick_xml::escape::escape;

use super::*;

/// What openconnect 9.01 posts first.
const INIT: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<config-auth client=\"vpn\" type=\"init\" \
    aggregate-auth-version=\"2\"><version who=\"vpn\">v9.01-3</version><device-id>linux-64</device-id><capabilities>\
    <auth-method>single-sign-on-v2</auth-method></capabilities><group-access>https://127.0.0.1/</group-access>\
    </config-auth>";

fn reply(auth: &str) -> String {
    format!("<config-auth type=\"auth-reply\"><version>v9</version><auth>{auth}</auth></config-auth>")
}

/// The handle and the answers of a reply.
type Answered = (Option<String>, Vec<(String, String)>);

fn answered(posted: Option<Posted>) -> Option<Answered> {
    let Posted::Answer { handle, answers } = posted? else { return None };
    Some((handle, answers.into_iter().map(|(name, value)| (name, value.to_string())).collect()))
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn what_a_stock_client_posts_first_begins_a_login() {
    assert!(Posted::of_xml(INIT.as_bytes()) == Ok(Posted::Begin));
    assert!(Posted::of_xml(b"<config-auth client=\"vpn\" type=\"logout\"/>") == Ok(Posted::LogOut));
    for other in ["<config-auth type=\"x\"/>", "<config-auth/>", "<auth type=\"init\"/>"] {
        assert!(Posted::of_xml(other.as_bytes()) == Err(XmlFault::Malformed), "{other}");
    }
}

#[test]
fn answers_bear_the_names_of_the_gateways_login() {
    let auth = "<handle>h1</handle><username>alice</username><password>a &amp; &lt;b&gt; </password>\
        <secondary_password>123456</secondary_password><next_password>n</next_password><other>o</other>";
    let xml = answered(Posted::of_xml(reply(auth).as_bytes()).ok()).unwrap();
    let answers =
        [pair("code", "123456"), pair("new_password", "n"), pair("password", "a & <b> "), pair("user", "alice")];
    assert_eq!(xml, (Some("h1".to_owned()), answers.to_vec()));
    let body = "handle=h1&username=alice&password=a+%26+%3Cb%3E+&secondary_password=123456&next_password=n&other=o";
    assert_eq!(answered(Posted::of_form(body.as_bytes())), Some(xml), "the same without XML");
}

#[test]
fn fields_elsewhere_in_a_document_answer_nothing() {
    let outside = "<config-auth type=\"auth-reply\"><username>alice</username><auth><x><password>p</password></x></auth>\
        </config-auth>";
    assert_eq!(answered(Posted::of_xml(outside.as_bytes()).ok()), Some((None, Vec::new())));
}

#[test]
fn handle_that_is_too_long_is_none() {
    let with = |length: usize| reply(&format!("<handle>{}</handle>", "h".repeat(length)));
    let handle = |length: usize| answered(Posted::of_xml(with(length).as_bytes()).ok()).unwrap().0;
    assert!(handle(MAX_HANDLE).is_some());
    assert_eq!(handle(MAX_HANDLE + 1), None);
}

proptest! {
    #[test]
    fn whatever_a_form_says_comes_back_as_it_was(handle in "\\PC{0,40}", password in "\\PC{0,40}") {
        let escaped = reply(&format!(
            "<handle>{}</handle><password>{}</password>",
            escape(handle.as_str()), escape(password.as_str())
        ));
        let (read, answers) = answered(Posted::of_xml(escaped.as_bytes()).ok()).unwrap();
        prop_assert_eq!(read.unwrap_or_default(), handle);
        prop_assert_eq!(answers, vec![pair("password", &password)]);
    }
}
