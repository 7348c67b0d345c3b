from zoo_core.api import fit as fit
from zoo_core.api import info as info
from zoo_core.api import list_models as list_models
from zoo_core.api import search as search
from zoo_core.errors import ZooError as ZooError
from zoo_core.hookspecs import hookimpl as hookimpl
from zoo_core.loading import load as load
from zoo_core.registry import get_registry as get_registry

__version__: str
