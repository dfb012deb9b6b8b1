"""A store in a container of Azure Blob Storage, by obstore.

az-cli's variables count: AZURE_STORAGE_ACCOUNT, and AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN;
without the last two obstore looks for a client secret, a workload identity or a managed one. Puts
that only create are native: `If-None-Match: *`. What a killed upload leaves (blocks that were never
committed) Azure deletes by itself, after a week.
"""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import obstore.store

from backstay.repo.stores.reasons import AZ
from backstay.repo.stores.remote import Place, RemoteStore

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, RetryConfig


@dataclass(frozen=True, slots=True)
class Container(Place):
    """Where a store is, and how it is reached. Holds no secret.

    Attributes:
        account: the storage account's name.
    """

    account: str = ""

    @property
    def server(self) -> str:
        """The URL that the container's name is added to."""
        return self.endpoint or f"https://{self.account}.blob.core.windows.net"


class AzStore(RemoteStore[Container]):
    """A store in a container of Azure Blob Storage.

    Args:
        bucket: where it is and how it is reached.
        limits: how long to wait.

    Raises:
        StoreError: the settings can't be used.
    """

    scheme = "az"
    service = AZ

    def describe(self) -> str:
        """Say what it is."""
        return f"{super().describe()}, account {self.bucket.account}"

    def _make(self, options: "ClientConfig", retry: "RetryConfig") -> Any:
        bucket = self.bucket
        config: AzureConfig = {
            "account_name": bucket.account,
            "endpoint": bucket.server,
            "use_emulator": False,
            "use_fabric_endpoint": False,
        }
        if key := os.environ.get("AZURE_STORAGE_KEY"):
            config["account_key"] = key
        return obstore.store.AzureStore(
            bucket.name,
            prefix=bucket.prefix or None,
            config=config,
            client_options=options,
            retry_config=retry,
        )
