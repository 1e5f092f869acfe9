//! Connections: at most so many at once, and none that keeps its place without a request.

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
use tokio::time::sleep;

/// Most connections; others wait.
const MOST: usize = 256;
/// The time for the head of a request, also between two requests of a connection.
const HEAD: Duration = Duration::from_secs(30);

/// Serves connections until `end`, and then until the requests under way have ended.
pub async fn serve(listener: TcpListener, router: Router, end: impl Future<Output = ()>) -> io::Result<()> {
    let (free, open) = (Arc::new(Semaphore::new(MOST)), GracefulShutdown::new());
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
        tokio::spawn(async move {
            // An error is the client's: it has gone, or does not speak HTTP.
            _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    open.shutdown().await;
    Ok(())
}
