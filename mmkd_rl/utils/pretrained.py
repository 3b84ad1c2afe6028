"""MMEngine's initialisation from a file, with a check that weights came from
it."""

from __future__ import annotations

from mmengine.model import PretrainedInit
from mmengine.model.weight_init import update_init_info
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from mmkd_rl.utils import checkpoint_io
from mmkd_rl.utils.load_report import fitted, watch_loading
from mmkd_rl.utils.state_dicts import below, read_weights


class CheckedPretrainedInit(PretrainedInit):
    """``init_cfg=dict(type='Pretrained', checkpoint=..., prefix=...)``.

    Unlike MMEngine's class it reads files of any trainer, see
    :mod:`.state_dicts`, and raises an error if (nearly) no weight of the
    module came from the file.
    """

    def __call__(self, module: nn.Module) -> None:
        """Load the file's weights into a module.

        Raises:
            ValueError: The file has none of the module's weights.
        """
        what = f'init_cfg {self.checkpoint!r}'
        content = checkpoint_io.load(self.checkpoint, 'init_cfg.checkpoint',
                                     self.map_location)
        if self.prefix:
            prefix = self.prefix.rstrip('.') + '.'
            inner = below(read_weights(content, what), prefix)
            content = {n.removeprefix(prefix): t for n, t in inner.items()
                       if n.startswith(prefix)}
            if not content:
                raise ValueError(f'{what} has no weights below the prefix '
                                 f'{self.prefix!r}')
        watch_loading(module, 'init_cfg', self.checkpoint)
        load_state_dict(module, fitted(content, module, what), strict=False,
                        logger='current')
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())
