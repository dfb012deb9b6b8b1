"""keys: do the API server's keys open what is encrypted in the snapshot?"""

from backstay.checks.question import Answer
from backstay.kubedata.outcome import KeyProof

NAME = "keys"


def keys(proof: KeyProof) -> Answer:
    """Judge what came of trying the keys."""
    return Answer(proof.verdict, proof.summary)
