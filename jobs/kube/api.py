"""The only module that imports the Kubernetes client. Objects are plain values, and errors are those of jobs.errors.

Credentials are found as in kubectl. The official client handles kubeconfig with exec plugins and renewed tokens, TLS
and proxies; its models are not used.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote, urlencode

import urllib3
from kubernetes import client as official
from kubernetes import config as _untyped_config

from jobs.errors import ConfigError, KubernetesError, NotFoundInKubernetes, RefusedByKubernetes, StaleObject

official_config: Any = _untyped_config
FIELD_MANAGER = "f2llm"
_CONNECT_SECONDS, _READ_SECONDS = 10.0, 30.0
_BUSY_ANSWERS = 10  # as in client-go
PAGE = 100
"""Objects per answer of a list that is read page by page."""
_ONLY_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
# kind -> (API, plural)
_KINDS = {
    "EmbeddingJob": ("apis/f2llm.dev/v1alpha1", "embeddingjobs"),
    "RayJob": ("apis/ray.io/v1", "rayjobs"),
    "RayCluster": ("apis/ray.io/v1", "rayclusters"),
    "ConfigMap": ("api/v1", "configmaps"),
    "ServiceAccount": ("api/v1", "serviceaccounts"),
    "Pod": ("api/v1", "pods"),
    "Event": ("apis/events.k8s.io/v1", "events"),
    "Role": ("apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "PodDisruptionBudget": ("apis/policy/v1", "poddisruptionbudgets"),
    "NetworkPolicy": ("apis/networking.k8s.io/v1", "networkpolicies"),
    "Lease": ("apis/coordination.k8s.io/v1", "leases"),
    "Deployment": ("apis/apps/v1", "deployments"),
    "Secret": ("api/v1", "secrets"),
    "PersistentVolumeClaim": ("api/v1", "persistentvolumeclaims"),
    "Namespace": ("api/v1", "namespaces"),
    "Node": ("api/v1", "nodes"),
    "PriorityClass": ("apis/scheduling.k8s.io/v1", "priorityclasses"),
    "SelfSubjectAccessReview": ("apis/authorization.k8s.io/v1", "selfsubjectaccessreviews"),
}
_CLUSTER_SCOPED = ("Namespace", "Node", "PriorityClass", "SelfSubjectAccessReview")
Object = dict[str, Any]
_PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}


@dataclass(frozen=True)
class Access:
    """Connection data of the API server, for a library with its own watches. The token can expire."""

    server: str
    ca_path: str | None
    insecure: bool
    token: str | None = field(repr=False)
    certificate_path: str | None
    private_key_path: str | None


@dataclass(frozen=True)
class KubeApi:
    """A connection. `namespace` is the default of calls without one. Safe to use from several threads.

    With `answer_seconds`, a call fails after that time and is not retried, for requests that are useless later.
    """

    client: Any
    namespace: str
    answer_seconds: float | None = None

    def access(self) -> Access:
        """Current connection data, read on each call so that a renewed token is used."""
        headers: dict[str, str] = {}
        self.client.update_params_for_auth(headers, [], ["BearerToken"], "", "GET", None)
        configuration = self.client.configuration
        return Access(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            token=next(iter(headers.values()), "").partition(" ")[2] or None,  # "Bearer ..." or "bearer ..."
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
        )

    @property
    def server(self) -> str:
        """URL of the API server."""
        return str(self.client.configuration.host)

    def read(self, path: str) -> Object | None:
        """The answer to a GET of `/version`, `/apis` or `/openapi/v3/...`; None if the path does not exist."""
        try:
            return self._json("GET", path)
        except NotFoundInKubernetes:
            return None

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> Object | None:
        """The object; None if it does not exist."""
        try:
            return self._json("GET", self._path(kind, namespace, name))
        except NotFoundInKubernetes:
            return None

    def list(
        self,
        kind: str,
        *,
        namespace: str | None = None,
        selector: str = "",
        field_selector: str = "",
        everywhere: bool = False,
        limit: int | None = None,
    ) -> Object:
        """The list object. `everywhere`: of all namespaces. `limit`: at most so many items."""
        path = _all_path(kind) if everywhere else self._path(kind, namespace)
        query = {"labelSelector": selector, "fieldSelector": field_selector, "limit": str(limit or "")}
        return self._json("GET", path, {key: value for key, value in query.items() if value})

    def uids(self, kind: str, *, namespace: str | None, selector: str = "") -> set[str]:
        """The uids of the existing objects. `namespace=None`: of all namespaces."""
        path = _all_path(kind) if namespace is None else self._path(kind, namespace)
        query = {"limit": str(PAGE), **({"labelSelector": selector} if selector else {})}
        found: set[str] = set()
        while True:
            page = self._json("GET", path, query, None, "application/json", _ONLY_METADATA)
            found |= {each["metadata"]["uid"] for each in page["items"]}
            if not (token := page["metadata"].get("continue")):
                return found
            query["continue"] = token

    def create(self, value: Mapping[str, Any]) -> Object:
        """Create the object. Raises StaleObject if the name is in use."""
        return self._json("POST", self._path_of(value), {"fieldManager": FIELD_MANAGER}, value)

    def apply(self, value: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Server-side apply: set and own the fields of `value`; other fields of the object stay unchanged."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        path = f"{self._path_of(value)}/{value['metadata']['name']}"
        return self._json("PATCH", path, query, value, _PATCHES["apply"])

    def patch(
        self,
        kind: str,
        name: str,
        body: Any,
        *,
        namespace: str | None = None,
        how: Literal["merge", "json"] = "merge",
        subresource: str = "",
    ) -> Object:
        """A merge patch or a JSON patch. Raises StaleObject if a resourceVersion or a `test` does not match."""
        path = self._path(kind, namespace, name) + (f"/{subresource}" if subresource else "")
        return self._json("PATCH", path, {"fieldManager": FIELD_MANAGER}, body, _PATCHES[how])

    def replace_status(self, value: Mapping[str, Any]) -> Object:
        """Write `status` of the object. Raises StaleObject if the object has changed since it was read."""
        path = f"{self._path_of(value)}/{value['metadata']['name']}/status"
        return self._json("PUT", path, {"fieldManager": FIELD_MANAGER}, value)

    def replace(self, value: Mapping[str, Any]) -> Object:
        """Write the object. Raises StaleObject if it has changed since it was read."""
        return self._json("PUT", f"{self._path_of(value)}/{value['metadata']['name']}", {}, value)

    def delete(self, kind: str, name: str, *, namespace: str | None = None) -> bool:
        """Delete the object; False if it did not exist."""
        try:
            self._json("DELETE", self._path(kind, namespace, name), {"propagationPolicy": "Background"})
        except NotFoundInKubernetes:
            return False
        return True

    def watch(self, kind: str, *, version: str, namespace: str | None = None, seconds: int = 300) -> Iterator[Object]:
        """Events after `version` of a list, until `seconds` have passed or the server ends the watch."""
        query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(seconds)}
        query["allowWatchBookmarks"] = "true"
        for line in self._lines(self._path(kind, namespace), query, read_seconds=seconds + _READ_SECONDS):
            yield json.loads(line)

    def logs(self, pod: str, *, namespace: str | None = None, follow: bool = False, lines: int | None) -> Iterator[str]:
        """Lines of a pod's log. `lines`: only the last ones."""
        query = {"follow": "true"} if follow else {}
        if lines is not None:
            query["tailLines"] = str(lines)
        path = f"{self._path('Pod', namespace, pod)}/log"
        return self._lines(path, query, read_seconds=None if follow else _READ_SECONDS)

    def close(self) -> None:
        """Close idle connections. Not necessary before the process exits."""
        self.client.rest_client.pool_manager.clear()

    def _path(self, kind: str, namespace: str | None, name: str = "") -> str:
        api, plural = _KINDS[kind]
        if kind in _CLUSTER_SCOPED:
            path = f"/{api}/{plural}"
        else:
            path = f"/{api}/namespaces/{quote(namespace or self.namespace, safe='')}/{plural}"
        return f"{path}/{quote(name, safe='')}" if name else path

    def _path_of(self, value: Mapping[str, Any]) -> str:
        return self._path(value["kind"], value.get("metadata", {}).get("namespace"))

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        response = self._request(method, path, query or {}, body, content_type, _READ_SECONDS, accept)
        try:
            answer: Object = json.loads(response.data)
        except urllib3.exceptions.HTTPError as error:
            raise self._no_answer(error) from error
        return answer

    def _lines(self, path: str, query: Mapping[str, str], *, read_seconds: float | None) -> Iterator[str]:
        response = self._request("GET", path, query, None, "application/json", read_seconds)
        rest = b""
        try:
            for chunk in response.stream():
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (line.decode("utf-8", "replace") for line in whole)
            if rest:
                yield rest.decode("utf-8", "replace")
        except urllib3.exceptions.HTTPError:
            return  # a watch ends like this, and the caller starts a new one
        finally:
            response.release_conn()

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Any,
        content_type: str,
        read_seconds: float | None,
        accept: str = "application/json",
    ) -> Any:
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": "f2llm"}
        self.client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self.client.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        try:
            response = self.client.rest_client.pool_manager.request(
                method,
                url,
                headers=headers,
                body=None if body is None else json.dumps(body),
                preload_content=False,
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds, total=self.answer_seconds),
                retries=_patience(method) if self.answer_seconds is None else urllib3.Retry(0, raise_on_status=False),
            )
        except urllib3.exceptions.HTTPError as error:
            raise self._no_answer(error) from error
        if response.status >= 400:
            raise _error_of(response)
        return response

    def _no_answer(self, error: Exception) -> KubernetesError:
        return KubernetesError(
            f"the Kubernetes API at {self.server} does not answer: {type(error).__name__}",
            remedy="check that `kubectl get ej` works with the same kubeconfig and context",
        )


def _patience(method: str) -> urllib3.Retry:
    """Retries. If a connection breaks before the answer, only a GET is repeated: a write may have taken effect.

    Every request is repeated if the server is busy, or does not serve a new resource yet: it then sends Retry-After and
    has not executed the request.
    """
    again = 2 if method == "GET" else 0
    return urllib3.Retry(
        total=_BUSY_ANSWERS, connect=2, read=again, redirect=0, status=_BUSY_ANSWERS, other=0,
        allowed_methods=None, raise_on_status=False,
    )  # fmt: skip


def connect(kubeconfig: str | None = None, context: str | None = None, namespace: str | None = None) -> KubeApi:
    """Connect as kubectl does, with the first of: `kubeconfig`, $KUBECONFIG, ~/.kube/config, the pod's ServiceAccount.

    Raises ConfigError if none of them exists, or if `context` does not exist.
    """
    configuration = official.Configuration()
    file = kubeconfig or os.environ.get("KUBECONFIG")
    try:
        official_config.load_kube_config(file, context, client_configuration=configuration, persist_config=False)
        found = _namespace_of(file, context)
    except official_config.ConfigException as error:
        if kubeconfig or context:
            raise ConfigError(f"kubeconfig: {error}", remedy="see `kubectl config get-contexts`") from error
        found = _connect_from_inside(configuration)
    return KubeApi(official.ApiClient(configuration), namespace or found or "default")


def _connect_from_inside(configuration: Any) -> str:
    try:
        official_config.load_incluster_config(client_configuration=configuration)
    except official_config.ConfigException as error:
        raise ConfigError(
            "no cluster is configured: found no kubeconfig with a current context, and this process does not run in a "
            "pod",
            remedy="set KUBECONFIG or pass --kubeconfig; `kubectl config get-contexts` lists the available contexts",
        ) from error
    with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace", encoding="utf-8") as file:
        return file.read().strip()


def _namespace_of(kubeconfig: str | None, context: str | None) -> str | None:
    contexts, current = official_config.list_kube_config_contexts(kubeconfig)
    chosen = next((each for each in contexts if each["name"] == context), current) if context else current
    namespace: str | None = chosen.get("context", {}).get("namespace")
    return namespace


def micro_time() -> str:
    """The current time in the format of Leases and Events."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _all_path(kind: str) -> str:
    api, plural = _KINDS[kind]
    return f"/{api}/{plural}"


def _error_of(response: Any) -> KubernetesError:
    try:
        message = json.loads(response.data).get("message", "")
    except ValueError:
        message = response.data.decode("utf-8", "replace")[:200]
    code = response.status
    if code == 404:
        return NotFoundInKubernetes(message, remedy="list the existing jobs with `f2llm list`")
    if code in (409, 410):
        return StaleObject(message, remedy="try again")
    if code in (400, 422):
        return RefusedByKubernetes(message, remedy="fix the job spec as the message says")
    if code in (401, 403):
        return RefusedByKubernetes(message, remedy="ask an administrator for the role `f2llm-user` of the chart")
    return KubernetesError(
        f"Kubernetes answered {code}: {message}", remedy="try again; check the state of the API server"
    )
