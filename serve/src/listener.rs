//! Connections: at most so many at once, none that keeps its place without a request, and none that keeps the server from its end.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The time for the head of a request, also between two requests of a connection.
const HEAD: Duration = Duration::from_secs(30);

/// Serves at most `most` connections at once, others wait, until `end`. Requests under way then have `grace` to end.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    most: usize,
    end: impl Future<Output = ()>,
    grace: Duration,
) -> io::Result<()> {
    let (free, open, mut connections) = (Arc::new(Semaphore::new(most)), GracefulShutdown::new(), JoinSet::new());
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut end = pin!(end);
    loop {
        let connect = async {
            let place = free.clone().acquire_owned().await.expect("the semaphore stays open");
            (place, listener.accept().await)
        };
        let (place, connected) = tokio::select! {
            connected = connect => connected,
            Some(_) = connections.join_next() => continue,
            () = &mut end => break,
        };
        let Ok((stream, _)) = connected else {
            // The client has gone, or the system has no more files for a while.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Tokens are sent one by one.
        _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = open.watch(http.serve_connection(TokioIo::new(stream), service));
        connections.spawn(async move {
            // An error is the client's: it has gone, or does not speak HTTP.
            _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    // A client that does not read its answer would keep its connection open.
    _ = timeout(grace, open.shutdown()).await;
    connections.shutdown().await;
    Ok(())
}
