//! Sound through the TURN server of a real livekit-server.

use crate::person::Person;
use crate::server::{Server, until};
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use voiced_core::packet::Codec;
use voiced_lab::livekit::{ServerSettings, SignalProxy};
use voiced_livekit::{IceTransportPolicy, LiveKit, MediaSettings};

async fn server_with_relay() -> Option<Server> {
    Server::start_with(ServerSettings { turn: true, ..ServerSettings::default() }).await
}

fn relayed_only() -> LiveKit {
    LiveKit::start(MediaSettings { ice_transport_policy: IceTransportPolicy::Relay, ..MediaSettings::default() }).expect("media threads")
}

fn counted(livekit: &LiveKit, name: &str) -> u64 {
    livekit.counters().read().into_iter().find(|(counter, _)| *counter == name).map_or(0, |(_, count)| count)
}

/// Ann and bob hear each other, without a loss, through a relay and a resume.
async fn talk_through(livekit: &LiveKit, proxy: &SignalProxy, server: &Server) {
    let mut people =
        [Person::join_by(livekit, &proxy.url(), server, "ann", Codec::Opus).await, Person::join_by(livekit, &proxy.url(), server, "bob", Codec::Opus).await];
    for (index, other) in [(0, "bob"), (1, "ann")] {
        people[index].speak(Codec::Opus);
        people[index].listen_to(other).await;
    }
    for person in &people {
        let heard = person.hear(60).await;
        assert!(heard.windows(2).all(|pair| pair[1].0.wrapping_sub(pair[0].0) == 1), "in order, nothing lost");
    }
    assert_eq!(counted(livekit, "relays"), 4, "two connections of each");
    proxy.cut();
    for person in &mut people {
        assert!(!person.returned().await, "resumed");
    }
    for person in &people {
        person.hear(30).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_only_a_relay_is_allowed_sound_goes_through_it_both_ways() {
    let Some(server) = server_with_relay().await else { return };
    let proxy = SignalProxy::to(server.url().as_str()).await.expect("a proxy");
    talk_through(&relayed_only(), &proxy, &server).await;
    // no address of ours but the relayed ones was ever told
    let told = proxy.from_participants().into_iter().filter_map(|signal| match signal {
        Request::Offer(description) | Request::Answer(description) => Some(description.sdp),
        Request::Trickle(trickle) => Some(trickle.candidate_init),
        _ => None,
    });
    let told: String = told.collect();
    assert!(told.contains("typ relay") && !told.contains("typ host"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_is_spoken_to_over_tcp_too() {
    let Some(server) = server_with_relay().await else { return };
    let proxy = SignalProxy::to(server.url().as_str()).await.expect("a proxy");
    tell_of_relay(&proxy, format!("turn:{}?transport=tcp", server.0.turn_tcp()));
    talk_through(&relayed_only(), &proxy, &server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_is_spoken_to_over_tls_when_it_is_who_it_says() {
    let Some(server) = server_with_relay().await else { return };
    let proxy = SignalProxy::to(server.url().as_str()).await.expect("a proxy");
    let (address, trusting, refused) = tls_before(server.0.turn_tcp()).await;
    tell_of_relay(&proxy, format!("turns:{address}?transport=tcp"));
    let settings = |turn_tls| MediaSettings { ice_transport_policy: IceTransportPolicy::Relay, turn_tls, ..MediaSettings::default() };
    let livekit = LiveKit::start(settings(Some(trusting))).expect("media threads");
    talk_through(&livekit, &proxy, &server).await;

    let wary = LiveKit::start(settings(None)).expect("media threads");
    let _carl = Person::join_by(&wary, &proxy.url(), &server, "carl", Codec::Opus).await;
    until("a refusal", async || refused.load(Ordering::Relaxed) > 0).await;
    assert_eq!(counted(&wary, "relays"), 0, "a certificate of nobody that this host trusts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_relay_is_asked_where_the_server_can_be_reached() {
    let Some(server) = server_with_relay().await else { return };
    let livekit = crate::livekit();
    let people = crate::two(&livekit, &server, Codec::Opus).await;
    for person in &people {
        person.hear(200).await;
    }
    assert_eq!(counted(&livekit, "relays"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_is_asked_when_no_way_to_the_server_is_found() {
    let settings = ServerSettings { turn: true, force_tcp: true, ..ServerSettings::default() };
    let Some(server) = Server::start_with(settings).await else { return };
    let proxy = SignalProxy::to(server.url().as_str()).await.expect("a proxy");
    // over UDP it cannot be reached, and its address over TCP is never told
    proxy.alter(|message| match message {
        Response::Trickle(_) => None,
        Response::Offer(mut offer) => {
            offer.sdp = without_candidates(&offer.sdp);
            Some(Response::Offer(offer))
        }
        Response::Answer(mut answer) => {
            answer.sdp = without_candidates(&answer.sdp);
            Some(Response::Answer(answer))
        }
        other => Some(other),
    });
    let livekit = crate::livekit();
    let ann = Person::join_by(&livekit, &proxy.url(), &server, "ann", Codec::Opus).await;
    until("the relay to be asked", async || counted(&livekit, "relays") == 2).await;
    drop(ann);
}

/// The server tells participants of this relay only.
fn tell_of_relay(proxy: &SignalProxy, url: String) {
    proxy.alter(move |mut message| {
        let servers = match &mut message {
            Response::Join(join) => &mut join.ice_servers,
            Response::Reconnect(reconnect) => &mut reconnect.ice_servers,
            _ => return Some(message),
        };
        for server in servers {
            server.urls = vec![url.clone()];
        }
        Some(message)
    });
}

/// Takes TLS off what goes to `server`; where, who trusts it, and how many did not.
async fn tls_before(server: SocketAddr) -> (SocketAddr, Arc<ClientConfig>, Arc<AtomicUsize>) {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
    let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let accepting = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(accepting.with_single_cert(vec![certificate.clone()], key).expect("a certificate")));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let refused = Arc::new(AtomicUsize::new(0));
    let counter = refused.clone();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (acceptor, refused) = (acceptor.clone(), counter.clone());
            tokio::spawn(async move {
                let Ok(mut near) = acceptor.accept(near).await else {
                    refused.fetch_add(1, Ordering::Relaxed);
                    return;
                };
                if let Ok(mut far) = TcpStream::connect(server).await {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a root");
    let trusting = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().expect("versions");
    (address, Arc::new(trusting.with_root_certificates(roots).with_no_client_auth()), refused)
}

fn without_candidates(sdp: &str) -> String {
    sdp.split_inclusive('\n').filter(|line| !line.starts_with("a=candidate:")).collect()
}
