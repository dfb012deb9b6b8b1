"""Which keys read which resources."""

import pytest

from backstay.errors import FormatError
from backstay.kubedata.configuration import parse_configuration
from backstay.kubedata.encryption import hypershift_configuration
from backstay.kubedata.keyname import key_name
from backstay.kubedata.resource import UNKNOWN, Resource
from kit import kube

A, B, C = (bytes([i]) * 32 for i in range(3))
IDENTITY = {"identity": {}}
SECRETS = Resource("secrets")


def parse(*rules, prefix=""):
    return parse_configuration(kube.configuration(*rules), name="x", prefix=prefix)


def names(configuration, resource, prefix="/registry"):
    found = configuration.providers(prefix, Resource.parse(resource))
    return [key.name for provider in found for key in provider.keys]


def test_a_resource_goes_before_its_group_and_that_before_all():
    found = parse(
        (["secrets"], [kube.provider("aescbc", exact=A)]),
        (["*."], [kube.provider("aescbc", core=B)]),
        (["*.*"], [kube.provider("aescbc", all=C)]),
    )
    assert names(found, "secrets") == ["exact"]
    assert names(found, "configmaps") == ["core"]
    assert names(found, "deployments.apps") == ["all"]


def test_rules_for_one_resource_add_up_in_order():
    found = parse(
        (["secrets"], [kube.provider("aescbc", a=A)]),
        (["secrets", "configmaps"], [kube.provider("secretbox", b=B), IDENTITY]),
    )
    assert names(found, "secrets") == ["a", "b"]
    assert names(found, "configmaps") == ["b"]
    assert names(found, "pods") == []


def test_the_first_provider_tells_whether_a_resource_is_encrypted():
    aescbc = kube.provider("aescbc", a=A)
    assert parse((["secrets"], [aescbc, IDENTITY])).encrypts("/registry", SECRETS)
    assert not parse((["secrets"], [IDENTITY, aescbc])).encrypts("/registry", SECRETS)
    assert not parse((["pods"], [aescbc])).encrypts("/registry", SECRETS)


def test_a_custom_resource_of_the_same_name_is_another_one():
    found = parse((["secrets"], [kube.provider("aescbc", a=A)]))
    assert names(found, "secrets.example.com") == []


def test_a_resource_whose_group_the_path_does_not_tell_goes_by_its_name():
    found = parse((["gadgets.example.com"], [kube.provider("aescbc", a=A)]))
    assert found.encrypts("/registry", Resource("gadgets", UNKNOWN))
    assert not found.encrypts("/registry", Resource("widgets", UNKNOWN))


def test_a_configuration_with_a_prefix_speaks_of_that_alone():
    found = parse((["*.*"], [kube.provider("aescbc", a=A)]), prefix="/kubernetes.io")
    assert names(found, "secrets", "/kubernetes.io") == ["a"]
    assert names(found, "routes.route.openshift.io", "/openshift.io") == []


def test_hypershift_encrypts_secrets_and_its_keys_may_open_anything():
    found = hypershift_configuration([A, B])
    assert found.encrypts("/kubernetes.io", SECRETS)
    assert not found.encrypts("/kubernetes.io", Resource("configmaps"))
    for resource in ("secrets", "configmaps", "routes.route.openshift.io"):
        assert names(found, resource) == [key_name(A), key_name(B)]


@pytest.mark.parametrize(
    ("keys", "reason"),
    [([], "no key"), ([A, A], "twice"), ([A, b"not-to-be-seen"], "key 2 has 14 bytes")],
)
def test_promise_5_keys_that_hypershift_would_not_take_are_refused_unseen(keys, reason):
    with pytest.raises(FormatError, match=reason) as caught:
        hypershift_configuration(keys)
    assert "not-to-be-seen" not in str(caught.value)
