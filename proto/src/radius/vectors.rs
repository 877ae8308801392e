//! Packets printed in the RFCs.

use data_encoding::HEXLOWER;

use super::attribute::{NAS_IDENTIFIER, SESSION_TIMEOUT, USER_NAME, USER_PASSWORD};
use super::reply::{MessageAuthenticator, Reply};
use super::request::{Draft, Request};
use super::{Authenticator, Code, hmac_md5};

const SECRET: &[u8] = b"xyzzy5461";

fn bytes(hex: &str) -> Vec<u8> {
    HEXLOWER.decode(hex.replace(' ', "").as_bytes()).unwrap()
}

fn authenticator(hex: &str) -> Authenticator {
    bytes(hex).try_into().unwrap()
}

/// RFC 2865 section 7.1: nemo with the password "arctangent". The request there has no Message-Authenticator.
fn nemo() -> Request {
    let draft = Draft::access(0, authenticator("0f403f9473978057bd83d5cb98f4227a"));
    let draft = draft.text(USER_NAME, "nemo").unwrap();
    draft.password(b"arctangent", SECRET).unwrap().seal(SECRET)
}

#[test]
fn password_is_hidden_as_in_rfc_2865() {
    let request = nemo();
    let hidden = bytes("02 12 0dbe708d93d413ce3196e43f782a0aee");
    assert_eq!(hidden[0], USER_PASSWORD);
    assert!(request.packet().ends_with(&hidden), "{}", HEXLOWER.encode(request.packet()));
}

#[test]
fn reply_of_rfc_2865_is_right_but_not_believed_without_a_message_authenticator() {
    let request = nemo();
    let reply = bytes("02000026 86fe220e7624ba2a1005f6bf9b55e0b2 060600000001 0f0600000000 0e06c0a80103");
    let read = |rule| Reply::read(&reply, &request, SECRET, rule);
    assert_eq!(read(MessageAuthenticator::Optional).map(|reply| reply.code), Ok(Code::AccessAccept));
    assert!(read(MessageAuthenticator::Required).is_err());
    let accept = read(MessageAuthenticator::Optional).unwrap();
    assert_eq!((accept.number(6), accept.number(SESSION_TIMEOUT)), (Some(1), None));
}

#[test]
fn status_server_is_that_of_rfc_5997() {
    let request = Draft::status(0xda, authenticator("8a54f4686fb394c52866e302185d0623")).seal(SECRET);
    let printed = bytes("0cda0026 8a54f4686fb394c52866e302185d0623 5012 5a665e2e1e8411f3e243822097c84fa3");
    assert_eq!(request.packet(), printed);
    let reply = bytes("02da0014 ef0d552a4bf2d693ec2b6fe8b5411d66");
    let read = Reply::read(&reply, &request, SECRET, MessageAuthenticator::Required);
    assert_eq!(read.map(|reply| reply.code), Ok(Code::AccessAccept));
}

#[test]
fn hmac_md5_is_that_of_rfc_2202() {
    use hmac::Mac;
    let mac = hmac_md5(b"Jefe", &[b"what do ya want ", b"for nothing?"]).finalize().into_bytes();
    assert_eq!(HEXLOWER.encode(&mac), "750c783e6ab0b503eaa86e310a5db738");
}

#[test]
fn accounting_request_is_authenticated_by_its_content() {
    let request = Draft::accounting(7).text(NAS_IDENTIFIER, "adit").unwrap().seal(SECRET);
    let mut zeroed = request.packet().to_vec();
    zeroed[4..20].fill(0);
    assert_eq!(request.packet()[4..20], super::md5(&[&zeroed, SECRET]));
}
