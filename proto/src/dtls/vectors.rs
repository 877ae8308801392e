//! Handshakes between two strangers, GnuTLS 3.7 as client and OpenSSL 3.0 as server, recorded on the wire. What they
//! agreed on is computed from their pre-shared key, and their records are opened.

use data_encoding::HEXLOWER;

use super::record::ContentType;
use super::sa::Inbound;
use super::secret::{MasterSecret, RANDOM_LEN, Randoms};
use super::suite::CipherSuite;
use crate::role::Role;
use crate::sealing::test_cipher::AwsCipher;

const PSK: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Handshake messages with their headers, and sealed records. The client's first hello, which the server answered with
/// a cookie, is no part of the transcript.
struct Recording {
    suite: CipherSuite,
    hellos_and_keys: &'static [&'static str],
    client_finished: &'static str,
    new_session_ticket: &'static str,
    server_finished: &'static str,
    client_data: &'static str,
    server_data: &'static str,
}

#[rustfmt::skip]
const RECORDINGS: [Recording; 3] = [
    Recording {
        suite: CipherSuite::PskAes256Gcm,
        hellos_and_keys: &[
            "0100007e000100000000007efefd475b2cdae31b796e4207893335b9d6494b0d0ba035d361a7d29eeafff572999c0014659f2c873687be71bed9b633566b417784b11b95000200a90100003e000500050100000000000d00220020040108090804040308070501080a0805050308080601080b080606030201020300230000ff01000100001c00024000",
            "020000310001000000000031fefdbabc5ccc282bf6c8cd1899ede27d5bc867e75eb69e2b3caac1f0798f76ec24810000a9000009ff0100010000230000",
            "0e0000000002000000000000",
            "100000050002000000000005000370736b",
        ],
        client_finished: "16fefd0001000000000000003000010000000000006271b76c5b62eac9566faf2cd786fc464dd03706a17e657f6cabace8b13410cef5f6b7da6ad96643",
        new_session_ticket: "040000b600030000000000b600001c2000b006859889060ce0a6aecce97ce5ebce9d45c0b3e418fd467413be2b7e65be87721e99d08937cdfec6ddd9dfa5825ec221a9ce2bd36b19fdd5d43ea14dcd58c6e22746c7e9dcdaf447a78a6c0c474ab0d1ecaee5840e0638a2c11090605af08d57f329e116deb10d63f64d0d1e75d62c44e11c3f8f3b2bb1e930fed2893a4afb3df691b08c524e02ec175ede24af1065bc1f50b242e60676db5452a37bb78e53479641c88c069319d858e17563a76ee298",
        server_finished: "16fefd000100000000000000305efbb7ed00785d0918695a811281ad748bc830f4b9c074164590068cb945969f66dfe0c75be5f2817d4df034045227bf",
        client_data: "17fefd000100000000000100240001000000000001833ae6730a1df0f2a059bff3d296f95d71a8d91f2a0842255f72e9c2",
        server_data: "17fefd000100000000000100245efbb7ed00785d0a155f501b39e58a49b1439593acb638630ac9a98fef5d1d10dde06b1d",
    },
    Recording {
        suite: CipherSuite::PskAes128Gcm,
        hellos_and_keys: &[
            "0100007e000100000000007efefd728e5cde0034c722293780765886b7a60387995b83677006df2e3fabca91c450001407ef7311f21df1e3075dbe1d8b777afde710004a000200a80100003e000500050100000000000d00220020040108090804040308070501080a0805050308080601080b080606030201020300230000ff01000100001c00024000",
            "020000310001000000000031fefda118ae2f55cc502fc6ce1e2fa4fa64c79e46a9db7736f55e8d54494ed113b0500000a8000009ff0100010000230000",
            "0e0000000002000000000000",
            "100000050002000000000005000370736b",
        ],
        client_finished: "16fefd000100000000000000300001000000000000755bd70ac2348846ac9823309d0eb97d1326e38cd86e7e07a3bcc9dbe62173028fe643572ca6c2a5",
        new_session_ticket: "040000b600030000000000b600001c2000b0c0860236472234c6e5ca029f38be9ab9d9108209c1be904ed43f9d4545cf21c3c5a6c41a56bb06472ca4dc4175d6559ff868447ee75131a8da02388f4558379f6a6d28c13d0d5715e4f09fe0e32a9a7901849a488f7e44f982d42708b668001c50569b489f1e4c4496a09eaf89d4e2610e679d1f3f9e27cdf7c10837a4b5902756bed1e38c25c8bf14cc890b360915808e144ab50021836ae62df93f6c081067be1bed65b3bf97f09d62f579a021d7c3",
        server_finished: "16fefd000100000000000000309af2aed0b25a4fd69d9a88a4cf207b7057570e673d15b5246698fc1aad3e68ba5cf185baec01f2178b1f1551ca864a3e",
        client_data: "17fefd000100000000000100240001000000000001e66268c075e9d0b2cc3a4d0424530d69411bc73b73fd85f7f2bd7e58",
        server_data: "17fefd000100000000000100249af2aed0b25a4fd7cf09d3c226935db4566c8ea0af71298648853ea372b8f11d13395333",
    },
    Recording {
        suite: CipherSuite::PskChaCha20Poly1305,
        hellos_and_keys: &[
            "0100007e000100000000007efefde30738cdec0f34f2c83ceb2f75241c9c3c7a926042d895ac9f4d5f7510f3d6020014694e428fa5952a7e55ec8f49aa1c326bf418dbb40002ccab0100003e000500050100000000000d00220020040108090804040308070501080a0805050308080601080b080606030201020300230000ff01000100001c00024000",
            "020000310001000000000031fefd6f1c547cbcba65b87c5e9a1b90e06f163fa448103072056db44f07fea78f8fd600ccab000009ff0100010000230000",
            "0e0000000002000000000000",
            "100000050002000000000005000370736b",
        ],
        client_finished: "16fefd00010000000000000028bbf961838ec9ec77f06b762abf51106114c629fde970e95c6eca3fe4be91b9404bc5711c5d670f3d",
        new_session_ticket: "040000b600030000000000b600001c2000b0c3081219085bbbdec29ff04a9ac9046ca9ad41fd35640aef76096140dd0bb160d99b74ded507bde434608c147f73c3449e5a30d53949b99d1352be824d174468bfb6065c91850969466efc2ae8e8edc8a77e50d1b72a36dc8eba7c4fa432401574c86badd16fa59a161e42ea09594b380e28aedcc4eeb70094ec99f45a6870654e1088424563cce245f02ab2823252a95984359f1ec7cc24faaba6856c60b328cb5203f3e5a16974d7742d5cca17725a",
        server_finished: "16fefd000100000000000000288382070146bd9de3d90fdf600e2c9e5982dd07e2d8686d30af33b84af69744a8097fd019db5eea1d",
        client_data: "17fefd0001000000000001001c31aa65a204a70a3929a7350abd92675d344c0c6d394a9cdda7377d46",
        server_data: "17fefd0001000000000001001c5ee96fdf8c7446627bf60c021c2cfda201b8cf592e648c52958b61ca",
    },
];

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

/// Where a hello's random is: behind the message's header and the version.
fn random(hello: &[u8]) -> [u8; RANDOM_LEN] {
    hello[14..14 + RANDOM_LEN].try_into().unwrap()
}

fn open(sa: &mut Inbound<AwsCipher>, record: &str, content: ContentType) -> Vec<u8> {
    let mut record = hex(record);
    let opened = sa.open(&mut record).unwrap();
    assert_eq!(opened.content, content);
    record[opened.range].to_vec()
}

#[test]
fn handshakes_and_data_of_strangers_are_understood() {
    for recording in RECORDINGS {
        let Recording { suite, hellos_and_keys, .. } = recording;
        let messages: Vec<Vec<u8>> = hellos_and_keys.iter().map(|message| hex(message)).collect();
        let randoms = Randoms { client: random(&messages[0]), server: random(&messages[1]) };
        let master = MasterSecret::from_psk(suite.hash(), &hex(PSK), &randoms).unwrap();
        let keys = master.keys(suite, &randoms).unwrap();
        let mut from_client = Inbound::<AwsCipher>::new(keys.client_to_server).unwrap();
        let mut from_server = Inbound::<AwsCipher>::new(keys.server_to_client).unwrap();

        let mut transcript = messages.concat();
        let finished = open(&mut from_client, recording.client_finished, ContentType::Handshake);
        assert_eq!(finished[12..], master.verify_data(suite.hash(), Role::Client, &transcript));
        transcript.extend(finished);
        transcript.extend(hex(recording.new_session_ticket));
        let finished = open(&mut from_server, recording.server_finished, ContentType::Handshake);
        assert_eq!(finished[12..], master.verify_data(suite.hash(), Role::Server, &transcript));

        let content = ContentType::ApplicationData;
        assert_eq!(open(&mut from_client, recording.client_data, content), b"from client\n");
        assert_eq!(open(&mut from_server, recording.server_data, content), b"from server\n");
    }
}
