"""The exponential moving average of a network's weights, which all training scripts evaluate and export."""

from torch.optim.swa_utils import AveragedModel


def moving_average(network, decay, use_buffers=False):
    """An AveragedModel that keeps `decay` of itself at each update. With `use_buffers` it averages batch norms too."""

    def update(average, new, _):
        return average.lerp(new, 1 - decay) if average.is_floating_point() else new

    return AveragedModel(network, avg_fn=update, use_buffers=use_buffers)
