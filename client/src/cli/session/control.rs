//! Answers the control socket of a running client: `GET /status`, `GET /events` for followers, `POST /login` and
//! `POST /down`.

use adit_net::control::{Events, Handler, Handling, Request, Response, Subscribing};

use crate::cli::events::EVENTS;
use crate::run::SessionHandle;

/// Answers for one session.
pub(super) struct ControlHandler {
    session: SessionHandle,
}

impl ControlHandler {
    pub(super) fn new(session: SessionHandle) -> Self {
        Self { session }
    }

    async fn status(&self) -> Response {
        match self.session.status().await {
            Some(status) => match serde_json::to_value(&status) {
                Ok(value) => Response::ok(value),
                Err(error) => Response::refused(500, error.to_string()),
            },
            None => ending(),
        }
    }

    async fn events(&self) -> Result<Events, Response> {
        let (first, later) = self.session.follow().await.ok_or_else(ending)?;
        Ok(Events::new(&first, later))
    }
}

fn ending() -> Response {
    Response::refused(503, "the client is ending")
}

impl Handler for ControlHandler {
    fn follow(&self, request: &Request) -> Option<Subscribing<'_>> {
        let is_asked = request.method == "GET" && request.path == EVENTS;
        is_asked.then(|| -> Subscribing<'_> { Box::pin(self.events()) })
    }

    fn handle(&self, request: Request) -> Handling<'_> {
        Box::pin(async move {
            match (request.method.as_str(), request.path.as_str()) {
                ("GET", "/status") => self.status().await,
                ("POST", "/down") => {
                    self.session.stop().await;
                    Response::ok(serde_json::Value::Null)
                }
                ("POST", "/login") => {
                    self.session.logged_in().await;
                    Response::ok(serde_json::Value::Null)
                }
                _ => Response::refused(404, format!("there is no {} {}", request.method, request.path)),
            }
        })
    }
}
