use tokio::net::{TcpListener, tcp::OwnedReadHalf};

use super::*;

/// Longest wait for a notice.
const LIMIT: Duration = Duration::from_secs(10);
/// How long no notice must come: several of its own pauses.
const QUIET: Duration = Duration::from_millis(1500);

/// A holder on loopback.
struct Holder {
    listener: TcpListener,
}

impl Holder {
    async fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("a free port") }
    }

    fn address(&self) -> String {
        self.listener.local_addr().expect("bound").to_string()
    }

    /// Takes one connection and answers; what is given back keeps it open.
    async fn answer(&self, text: &str) -> (OwnedReadHalf, tokio::net::tcp::OwnedWriteHalf) {
        let (stream, _) = self.listener.accept().await.expect("a standby connects");
        let (read, mut write) = stream.into_split();
        write.write_all(text.as_bytes()).await.expect("it listens");
        (read, write)
    }
}

fn us() -> Attendant {
    Attendant { me: "us".into(), peers: Peers::default() }
}

fn answer(identity: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{}\r\n", line(identity).len(), line(identity))
}

#[tokio::test]
async fn a_holder_whose_port_is_closed_after_it_answered_is_dead() {
    let us = &us();
    let holder = Holder::new().await;
    let address = holder.address();
    let dies = async {
        let kept = holder.answer(&answer("me_1")).await;
        drop((kept, holder));
    };
    let (noticed, ()) = tokio::join!(timeout(LIMIT, of(&address, "me_1", us)), dies);
    noticed.expect("a notice");
}

/// The kernel closes a dying process's connections one after the other.
#[tokio::test]
async fn a_holder_that_is_still_dying_when_it_is_asked_again_is_dead_at_once() {
    let us = &us();
    let holder = Holder::new().await;
    let address = holder.address();
    let dies = async {
        drop(holder.answer(&answer("me_1")).await);
        // Taken in, and closed without an answer; then the listening socket goes.
        drop(holder.listener.accept().await.expect("it is asked again"));
        drop(holder);
    };
    let mut stood = false;
    let (outcome, ()) = tokio::join!(attend(&address, "me_1", us, &mut stood), dies);
    assert_eq!(outcome, Outcome::Dead);
}

#[tokio::test]
async fn a_holder_whose_address_another_answers_is_dead() {
    let us = &us();
    let holder = Holder::new().await;
    let address = holder.address();
    let restarted = async {
        drop(holder.answer(&answer("me_1")).await);
        holder.answer(&answer("me_2")).await
    };
    let (noticed, _kept) = tokio::join!(timeout(LIMIT, of(&address, "me_1", us)), restarted);
    noticed.expect("a notice");
    // Without ever having stood: our own dead self.
    let second = answer("me_2");
    let (noticed, _kept) = tokio::join!(timeout(LIMIT, of(&address, "me_1", us)), holder.answer(&second));
    noticed.expect("a notice");
}

#[tokio::test]
async fn a_connection_that_is_cut_while_the_holder_lives_is_no_death() {
    let us = &us();
    let holder = Holder::new().await;
    let address = holder.address();
    let cut = async {
        for _ in 0..4 {
            drop(holder.answer(&answer("me_1")).await);
        }
        holder.answer(&answer("me_1")).await
    };
    let mut notice = std::pin::pin!(of(&address, "me_1", us));
    let kept = tokio::select! {
        () = &mut notice => panic!("it lives"),
        kept = cut => kept,
    };
    assert!(timeout(QUIET, notice).await.is_err(), "it lives");
    drop(kept);
}

#[tokio::test]
async fn neither_a_refusal_from_the_start_nor_silence_nor_nonsense_is_death() {
    let us = &us();
    let closed = Holder::new().await.address();
    assert!(timeout(QUIET, of(&closed, "me_1", us)).await.is_err(), "a firewall may refuse");
    // Accepts, by its backlog, and never answers.
    let silent = Holder::new().await;
    assert!(timeout(QUIET, of(&silent.address(), "me_1", us)).await.is_err(), "silence is not death");
    let other = Holder::new().await;
    let address = other.address();
    let mut notice = std::pin::pin!(of(&address, "me_1", us));
    let kept = tokio::select! {
        () = &mut notice => panic!("somebody else's server says nothing about it"),
        kept = other.answer("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n") => kept,
    };
    assert!(timeout(QUIET, notice).await.is_err());
    drop(kept);
}

#[tokio::test]
async fn several_who_attend_one_holder_share_a_connection_and_all_hear_of_its_death() {
    let (begun, dies) = (Arc::new(Mutex::new(Vec::new())), Arc::new(tokio::sync::Notify::new()));
    let attend: Attend = {
        let (begun, dies) = (Arc::clone(&begun), Arc::clone(&dies));
        Arc::new(move |_, identity| {
            begun.lock().expect("not poisoned").push(identity);
            let dies = Arc::clone(&dies);
            Box::pin(async move { dies.notified().await })
        })
    };
    let shared = shared(attend);
    let attends = |identity: &str| shared("a:1".into(), identity.into());
    let (first, second, other) = (attends("a"), attends("a"), attends("b"));
    assert_eq!(*begun.lock().expect("not poisoned"), ["a".into(), "b".into()].map(|name: Box<str>| name));
    drop(other);
    let both = async { tokio::join!(first, second) };
    let die = async {
        tokio::task::yield_now().await;
        dies.notify_waiters();
    };
    timeout(LIMIT, async { tokio::join!(both, die) }).await.expect("both hear of it");
    drop(attends("a"));
    assert_eq!(begun.lock().expect("not poisoned").len(), 3, "what is over is begun anew");
}
