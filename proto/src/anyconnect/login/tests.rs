use proptest::prelude::*;

use super::*;

/// What openconnect 9.01 posts first.
const INIT: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<config-auth client=\"vpn\" type=\"init\" \
    aggregate-auth-version=\"2\"><version who=\"vpn\">v9.01-3</version><device-id>linux-64</device-id><capabilities>\
    <auth-method>single-sign-on-v2</auth-method></capabilities><group-access>https://127.0.0.1/</group-access>\
    </config-auth>";

fn asked(name: &'static str, kind: Kind, echo: bool) -> Asked {
    Asked { name, label: "L", kind, echo }
}

fn form(text: &str, fields: Vec<Asked>) -> Form {
    Form { text: text.to_owned(), fields }
}

fn reply(auth: &str) -> String {
    format!("<config-auth type=\"auth-reply\"><version>v9</version><auth>{auth}</auth></config-auth>")
}

/// The handle and the answers of a reply.
type Answered = (Option<String>, Vec<(String, String)>);

fn answered(posted: Option<Posted>) -> Option<Answered> {
    let Posted::Answer { handle, answers, .. } = posted? else { return None };
    Some((handle, answers.into_iter().map(|(name, value)| (name, value.to_string())).collect()))
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn what_a_stock_client_posts_first_begins_a_login() {
    assert!(Posted::of_xml(INIT.as_bytes()) == Ok(Posted::Begin { group: None, opens_browser: false }));
    assert!(Posted::of_xml(b"<config-auth client=\"vpn\" type=\"logout\"/>") == Ok(Posted::LogOut));
    for other in ["<config-auth type=\"x\"/>", "<config-auth/>", "<auth type=\"init\"/>"] {
        assert!(Posted::of_xml(other.as_bytes()) == Err(XmlFault::Malformed), "{other}");
    }
}

#[test]
fn client_says_in_every_document_whether_it_opens_a_browser() {
    let opens = |kind: &str, method: &str| {
        let document = format!(
            "<config-auth type=\"{kind}\"><capabilities><auth-method>single-sign-on-v2</auth-method>\
             <auth-method>{method}</auth-method></capabilities><auth/></config-auth>"
        );
        match Posted::of_xml(document.as_bytes()).ok() {
            Some(Posted::Begin { opens_browser, .. } | Posted::Answer { opens_browser, .. }) => opens_browser,
            Some(Posted::LogOut) | None => panic!("{document}"),
        }
    };
    for kind in ["init", "auth-reply"] {
        assert!(opens(kind, "single-sign-on-external-browser"), "{kind}");
        assert!(!opens(kind, "single-sign-on"), "{kind}");
    }
}

#[test]
fn page_has_a_client_open_a_browser_and_what_that_brought_is_its_answer() {
    let offered = ["staff".to_owned()];
    let groups = Groups { offered: &offered, chosen: None };
    let page = BrowserPage { text: "<Code> A", url: "https://gw/login?a&b", handle: "h1", error: None, groups };
    let document = page.document();
    for part in [
        "type=\"auth-request\"",
        "<message>&lt;Code&gt; A</message><sso-v2-login>https://gw/login?a&amp;b</sso-v2-login>",
        "<sso-v2-browser-mode>external</sso-v2-browser-mode>",
        "<input type=\"hidden\" name=\"handle\" value=\"h1\"/><select name=\"group_list\"",
        "<input type=\"sso\" name=\"sso-token\"/></form>",
    ] {
        assert!(document.contains(part), "{part}: {document}");
    }
    let auth = "<handle>h1</handle><sso-token>T0ken</sso-token>";
    let answer = answered(Posted::of_xml(reply(auth).as_bytes()).ok());
    assert_eq!(answer, Some((Some("h1".to_owned()), vec![pair("proof", "T0ken")])));
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
fn group_is_chosen_in_a_list_of_the_first_form_and_stands_in_the_path_from_then_on() {
    let form = form("", vec![asked("user", Kind::User, true)]);
    let offered = ["staff".to_owned(), "full".to_owned()];
    let page = |groups| Page { form: &form, handle: "h", error: None, groups }.document(Dialect::Aggregate);
    let first = page(Groups { offered: &offered, chosen: Some("full") });
    let list = "<select name=\"group_list\" label=\"GROUP:\"><option value=\"staff\">staff</option><option value=\"full\" \
        selected=\"true\">full</option><option value=\".\">default</option></select>";
    assert!(first.contains(list) && first.contains("action=\"/\""), "{first}");
    let unchosen = page(Groups { offered: &offered, chosen: None });
    assert!(unchosen.contains("<option value=\".\" selected=\"true\">"), "{unchosen}");
    let later = page(Groups { offered: &[], chosen: Some("full") });
    assert!(!later.contains("group_list") && later.contains("action=\"/full\""), "{later}");
}

#[test]
fn group_is_told_beside_the_answers() {
    let group = |posted: Option<Posted>| match posted? {
        Posted::Begin { group, .. } | Posted::Answer { group, .. } => group,
        Posted::LogOut => None,
    };
    let of_xml = |kind: &str, named: &str| {
        let document =
            format!("<config-auth type=\"{kind}\"><auth/><group-select>{named}</group-select></config-auth>");
        group(Posted::of_xml(document.as_bytes()).ok())
    };
    for kind in ["init", "auth-reply"] {
        assert_eq!(of_xml(kind, "staff").as_deref(), Some("staff"), "{kind}");
        assert_eq!((of_xml(kind, "."), of_xml(kind, "")), (None, None), "{kind}");
    }
    assert_eq!(group(Posted::of_form(b"username=a&group_list=staff")).as_deref(), Some("staff"));
    assert_eq!(group(Posted::of_form(b"username=a&group_list=.")), None);
}

#[test]
fn handle_that_is_too_long_is_none() {
    let with = |length: usize| reply(&format!("<handle>{}</handle>", "h".repeat(length)));
    let handle = |length: usize| answered(Posted::of_xml(with(length).as_bytes()).ok()).unwrap().0;
    assert!(handle(MAX_HANDLE).is_some());
    assert_eq!(handle(MAX_HANDLE + 1), None);
}

#[test]
fn page_asks_for_what_the_form_asks() {
    let form = form("", vec![asked("user", Kind::User, true), asked("password", Kind::Password, false)]);
    let page = Page { form: &form, handle: "h1", error: Some("no <way>"), groups: Groups::default() };
    assert_eq!(
        page.document(Dialect::Aggregate),
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<config-auth client=\"vpn\" type=\"auth-request\" \
         aggregate-auth-version=\"2\"><auth id=\"main\"><title>Login</title><message>Please log in.</message>\
         <error>no &lt;way&gt;</error><form method=\"post\" action=\"/\"><input type=\"hidden\" name=\"handle\" \
         value=\"h1\"/><input type=\"text\" name=\"username\" label=\"L:\"/><input type=\"password\" \
         name=\"password\" label=\"L:\"/></form></auth></config-auth>\n"
    );
    let plain = Page { error: None, ..page }.document(Dialect::Plain);
    assert!(plain.contains("?>\n<auth id=\"main\">") && plain.ends_with("</auth>\n"), "{plain}");
}

#[test]
fn every_kind_of_question_has_a_field() {
    let choice = Kind::Choice(vec!["one".to_owned(), "two & \"three\"".to_owned()]);
    for (field, shown) in [
        (asked("code", Kind::Code, true), "<input type=\"password\" name=\"secondary_password\" label=\"L:\"/>"),
        (
            asked("new_password", Kind::NewPassword, false),
            "<input type=\"password\" name=\"next_password\" label=\"L:\"/>",
        ),
        (asked("text", Kind::Text, true), "<input type=\"text\" name=\"text\" label=\"L:\"/>"),
        (
            asked("choice", choice, true),
            "<select name=\"choice\" label=\"L:\"><option value=\"one\">one</option>\
             <option value=\"two &amp; &quot;three&quot;\">two &amp; &quot;three&quot;</option></select>",
        ),
    ] {
        let form = form("Code of your <app>?", vec![field]);
        let page =
            Page { form: &form, handle: "", error: None, groups: Groups::default() }.document(Dialect::Aggregate);
        assert!(page.contains(shown) && page.contains("<auth id=\"challenge\">"), "{page}");
        assert!(page.contains("<message>Code of your &lt;app&gt;?</message>"), "{page}");
    }
}

#[test]
fn end_of_a_login_bears_the_token_where_clients_look() {
    let document = complete("t0k-en_", Dialect::Aggregate);
    assert!(document.contains("type=\"complete\"") && document.contains("<session-token>t0k-en_</session-token>"));
    assert!(complete("t", Dialect::Plain).contains("<auth id=\"success\">"));
    let cisco = complete_for_cisco("t0k-en_", "AB12", Dialect::Aggregate);
    assert!(cisco.contains("<session-token>t0k-en_</session-token>") && xml::read(cisco.as_bytes()).is_ok(), "{cisco}");
    assert!(cisco.contains("<server-cert-hash>AB12</server-cert-hash>"), "{cisco}");
    assert_eq!(complete_for_cisco("t", "AB12", Dialect::Plain), complete("t", Dialect::Plain));
    assert!(refusal("a & b", Dialect::Aggregate).contains("<error>a &amp; b</error>"));
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

    #[test]
    fn every_page_is_a_document_that_can_be_read(text in "\\PC{0,40}", choices in proptest::collection::vec("\\PC{0,9}", 0..5)) {
        let form = form(&text, vec![asked("choice", Kind::Choice(choices), true)]);
        let page = Page { form: &form, handle: &text, error: Some(&text), groups: Groups::default() };
        for dialect in [Dialect::Aggregate, Dialect::Plain] {
            let elements = xml::read(page.document(dialect).as_bytes()).map_err(|_| ()).unwrap();
            let error = elements.iter().find(|element| element.path.ends_with("auth/error")).unwrap();
            prop_assert_eq!(error.text.as_str(), text.as_str());
        }
    }
}
