"""A store in a bucket of Google Cloud Storage, by obstore.

Credentials are obstore's business: GOOGLE_APPLICATION_CREDENTIALS (a service account, or what
`gcloud auth application-default login` wrote), or the role of the machine or pod. Puts that only
create are native: `x-goog-if-generation-match: 0`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import obstore.store

from backstay.repo.stores.reasons import GS
from backstay.repo.stores.remote import Place, RemoteStore

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSConfig, RetryConfig

_ENDPOINT = "https://storage.googleapis.com"


@dataclass(frozen=True, slots=True)
class Bucket(Place):
    """Where a store is, and how it is reached. Holds no secret."""

    @property
    def server(self) -> str:
        """The URL of the server."""
        return self.endpoint or _ENDPOINT


class GsStore(RemoteStore[Bucket]):
    """A store in a bucket of Google Cloud Storage.

    Args:
        bucket: where it is and how it is reached.
        limits: how long to wait.

    Raises:
        StoreError: the settings can't be used.
    """

    scheme = "gs"
    service = GS

    def _make(self, options: "ClientConfig", retry: "RetryConfig") -> Any:
        bucket = self.bucket
        # Given also where it is Google's own: a variable or a credentials file would else decide.
        config: GCSConfig = {"base_url": bucket.server}
        return obstore.store.GCSStore(
            bucket.name,
            prefix=bucket.prefix or None,
            config=config,
            client_options=options,
            retry_config=retry,
        )
