#!/usr/bin/env python3
"""Writes a model folder of a published architecture at its full size, with random weights, for benchmarks.

usage: make_model.py NAME FOLDER [--classes 1000]

NAME is a row of MODELS below. Tensor names and shapes are those of the reference code; config.json says what a hub's
config says and no more, so for the timm layout a loader must know the sizes that go with the architecture's name.
"""
import argparse
import itertools
import json
import math
import os
import random
import struct
from array import array
from collections import namedtuple

Tensor = namedtuple('Tensor', 'name shape fill')  # fill: Noise for float32, or the bytes of an int64 tensor
Noise = namedtuple('Noise', 'centre spread')  # uniform in centre +- spread, so .035 deviates by .02

EMBEDDING, GAIN, BIAS, VARIANCE = Noise(0, .035), Noise(1, .1), Noise(0, .035), Noise(1, .25)
NOISE_FLOATS = 2 ** 20 + 7  # not a multiple of any row length, lest the rows of a large matrix repeat
BUFFERS = ('running_mean', 'running_var', 'num_batches_tracked', 'relative_position_index')  # not parameters
IMAGENET = {'mean': [.485, .456, .406], 'std': [.229, .224, .225]}
HALF = {'mean': [.5] * 3, 'std': [.5] * 3}
CLIP_VOCABULARY = 49408

# Names of the parts of an encoder block; one name in `qkv` means the three matrices stacked.
Block = namedtuple('Block', 'norm1 qkv proj norm2 fc1 fc2')


def query_key_value(attention):
    return tuple(f'attention.{attention}.{part}' for part in ('query', 'key', 'value'))


TIMM = Block('norm1', ('attn.qkv',), 'attn.proj', 'norm2', 'mlp.fc1', 'mlp.fc2')
PERFORMER = Block('norm1', ('kqv',), 'proj', 'norm2', 'mlp.0', 'mlp.2')
VIT = Block('layernorm_before', query_key_value('attention'), 'attention.output.dense', 'layernorm_after',
            'intermediate.dense', 'output.dense')
SWIN = VIT._replace(qkv=query_key_value('self'))
CLIP = Block('layer_norm1', tuple(f'self_attn.{part}_proj' for part in 'qkv'), 'self_attn.out_proj', 'layer_norm2',
             'mlp.fc1', 'mlp.fc2')
DINOV2 = VIT._replace(norm1='norm1', norm2='norm2', fc1='mlp.fc1', fc2='mlp.fc2')

# Where the two Swin layouts differ; `merge` is 1 where a merging layer belongs to the stage it leads into.
SwinLayout = namedtuple('SwinLayout', 'patch patch_norm stage block attention index merge norm head')
SWIN_TIMM = SwinLayout('patch_embed.proj', 'patch_embed.norm', 'layers', TIMM, 'attn', False, 1, 'norm', 'head.fc')
SWIN_HF = SwinLayout('swin.embeddings.patch_embeddings.projection', 'swin.embeddings.norm', 'swin.encoder.layers', SWIN,
                     'attention.self', True, 0, 'swin.layernorm', 'classifier')


# Pieces: each yields tensors.

def matrix(name, *shape):
    """A weight [out, in, ...], scaled as PyTorch initialises it, so that activations keep their size."""
    yield Tensor(name, shape, Noise(0, 1 / math.sqrt(math.prod(shape[1:]))))


def linear(name, rows, columns, bias=True):
    yield from matrix(name + '.weight', rows, columns)
    if bias:
        yield Tensor(name + '.bias', (rows,), BIAS)


def conv(name, channels_out, channels_in, kernel, bias=False):
    yield from matrix(name + '.weight', channels_out, channels_in, kernel, kernel)
    if bias:
        yield Tensor(name + '.bias', (channels_out,), BIAS)


def norm(name, width):
    yield Tensor(name + '.weight', (width,), GAIN)
    yield Tensor(name + '.bias', (width,), BIAS)


def batch_norm(name, width):
    yield from norm(name, width)
    yield Tensor(name + '.running_mean', (width,), BIAS)
    yield Tensor(name + '.running_var', (width,), VARIANCE)
    yield Tensor(name + '.num_batches_tracked', (), struct.pack('<q', 1))


def block(prefix, names, width, hidden, out=None, qkv_bias=True):
    """An encoder block from `width` to `out` channels (as many unless given)."""
    out = out or width
    yield from norm(prefix + names.norm1, width)
    for part in names.qkv:
        yield from linear(prefix + part, 3 * out // len(names.qkv), width, qkv_bias)
    yield from linear(prefix + names.proj, out, out)
    yield from norm(prefix + names.norm2, out)
    yield from linear(prefix + names.fc1, hidden, out)
    yield from linear(prefix + names.fc2, out, hidden)


def resnet(prefix, layers, channels, stem, preact):
    """A ResNet v2 with group norms: norms before the convolutions (BiT), else after them (the hybrids)."""
    yield from conv(prefix + 'stem.conv', stem, 3, 7)
    if not preact:
        yield from norm(prefix + 'stem.norm', stem)
    width = stem
    for stage, (depth, out) in enumerate(zip(layers, channels)):
        for i in range(depth):
            at = f'{prefix}stages.{stage}.blocks.{i}.'
            if i == 0:
                yield from conv(at + 'downsample.conv', out, width, 1)
                if not preact:
                    yield from norm(at + 'downsample.norm', out)
            widths = width, out // 4, out // 4, out
            for j, kernel in enumerate((1, 3, 1)):
                yield from conv(f'{at}conv{j + 1}', widths[j + 1], widths[j], kernel)
                yield from norm(f'{at}norm{j + 1}', widths[j] if preact else widths[j + 1])
            width = out


def relative_position_index(window):
    """[window^2, window^2]: the row of the bias table for each pair of tokens, as transformers stores it."""
    cells = [(y, x) for y in range(window) for x in range(window)]
    side = 2 * window - 1
    rows = [(y - v + window - 1) * side + x - u + window - 1 for y, x in cells for v, u in cells]
    return struct.pack(f'<{len(rows)}q', *rows)


# Architectures: each yields the tensors of a model.

def vit_hf(root, names, width, depth, classes, patch=16, image=224, ratio=4, features=1):
    yield Tensor(root + '.embeddings.cls_token', (1, 1, width), EMBEDDING)
    yield Tensor(root + '.embeddings.position_embeddings', (1, (image // patch) ** 2 + 1, width), EMBEDDING)
    yield from conv(root + '.embeddings.patch_embeddings.projection', width, 3, patch, bias=True)
    for i in range(depth):
        yield from block(f'{root}.encoder.layer.{i}.', names, width, ratio * width)
    yield from norm(root + '.layernorm', width)
    yield from linear('classifier', classes, features * width)


def vit(**sizes):
    yield from vit_hf('vit', VIT, **sizes)


def dinov2(width, depth, **sizes):
    yield from vit_hf('dinov2', DINOV2, width, depth, features=2, **sizes)  # class token and mean of the patches
    yield Tensor('dinov2.embeddings.mask_token', (1, width), EMBEDDING)
    for i in range(depth):
        for half in 1, 2:
            yield Tensor(f'dinov2.encoder.layer.{i}.layer_scale{half}.lambda1', (width,), GAIN)


def clip(image, text, embedding, classes):
    """Both towers: image and text are (width, depth); `classes` goes unused."""
    width, depth, patch = image
    yield Tensor('vision_model.embeddings.class_embedding', (width,), EMBEDDING)
    yield from conv('vision_model.embeddings.patch_embedding', width, 3, patch)
    yield Tensor('vision_model.embeddings.position_embedding.weight', ((224 // patch) ** 2 + 1, width), EMBEDDING)
    yield from norm('vision_model.pre_layrnorm', width)
    yield from norm('vision_model.post_layernorm', width)
    yield from linear('visual_projection', embedding, width, bias=False)
    yield Tensor('text_model.embeddings.token_embedding.weight', (CLIP_VOCABULARY, text[0]), EMBEDDING)
    yield Tensor('text_model.embeddings.position_embedding.weight', (77, text[0]), EMBEDDING)
    yield from norm('text_model.final_layer_norm', text[0])
    yield from linear('text_projection', embedding, text[0], bias=False)
    for tower, width, depth in ('vision_model', width, depth), ('text_model', *text):
        for i in range(depth):
            yield from block(f'{tower}.encoder.layers.{i}.', CLIP, width, 4 * width)
    yield Tensor('logit_scale', (), Noise(4.6, 0))


def vit_timm(patch_embed, width, depth, classes, grid=14, ratio=4, qkv_bias=True):
    yield Tensor('cls_token', (1, 1, width), EMBEDDING)
    yield Tensor('pos_embed', (1, grid * grid + 1, width), EMBEDDING)
    yield from patch_embed
    for i in range(depth):
        yield from block(f'blocks.{i}.', TIMM, width, ratio * width, qkv_bias=qkv_bias)
    yield from norm('norm', width)
    yield from linear('head', classes, width)


def hybrid(width, layers, channels=(256, 512, 1024, 2048), stem=64, **sizes):
    backbone = resnet('patch_embed.backbone.', layers, channels, stem, preact=False)
    proj = conv('patch_embed.proj', width, channels[len(layers) - 1], 1, bias=True)
    yield from vit_timm([*backbone, *proj], width, **sizes)


def t2t_vit(width, performer, token=64, **sizes):
    def tokens_to_token():
        for i, patch in (1, 3 * 7 * 7), (2, token * 3 * 3):
            at = f'tokens_to_token.attention{i}.'
            if performer:
                yield Tensor(at + 'w', (token // 2, token), Noise(0, 1))
            names = PERFORMER if performer else TIMM
            yield from block(at, names, patch, token, out=token, qkv_bias=performer)
        yield from linear('tokens_to_token.project', width, token * 3 * 3)
    yield from vit_timm(tokens_to_token(), width, ratio=3, qkv_bias=False, **sizes)


def deepvit(width, depth, heads, reattention, convolutional=True, patch=16, **sizes):
    """The last `reattention` blocks mix the attention maps of their heads."""
    def patch_embed():
        if convolutional:
            for i, channels, kernel in (1, 3, 7), (2, 64, 3):
                yield from conv(f'patch_embed.conv{i}', 64, channels, kernel)
                yield from batch_norm(f'patch_embed.bn{i}', 64)
            yield from conv('patch_embed.proj', width, 64, patch // 2, bias=True)
        else:
            yield from conv('patch_embed.proj', width, 3, patch, bias=True)
    yield from vit_timm(patch_embed(), width, depth, ratio=3, **sizes)
    for i in range(depth - reattention, depth):
        yield from conv(f'blocks.{i}.attn.reatten_matrix', heads, heads, 1, bias=True)
        yield from batch_norm(f'blocks.{i}.attn.var_norm', heads)


def swin(layout, classes, width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), window=7, patch=4, ratio=4):
    yield from conv(layout.patch, width, 3, patch, bias=True)
    yield from norm(layout.patch_norm, width)
    for stage, depth in enumerate(depths):
        if stage:
            merge = f'{layout.stage}.{stage - 1 + layout.merge}.downsample.'
            yield from norm(merge + 'norm', 4 * width)
            yield from linear(merge + 'reduction', 2 * width, 4 * width, bias=False)
            width *= 2
        for i in range(depth):
            at = f'{layout.stage}.{stage}.blocks.{i}.'
            yield from block(at, layout.block, width, ratio * width)
            at += layout.attention + '.relative_position_'
            yield Tensor(at + 'bias_table', ((2 * window - 1) ** 2, heads[stage]), EMBEDDING)
            if layout.index:
                yield Tensor(at + 'index', (window ** 2, window ** 2), relative_position_index(window))
    yield from norm(layout.norm, width)
    yield from linear(layout.head, classes, width)


def mvitv2(classes, width=96, depths=(1, 2, 5, 2), head=96, image=224):
    """`head` channels a head throughout: the number of heads doubles with the width."""
    yield from conv('patch_embed.proj', width, 3, 7, bias=True)
    grid, key_stride = image // 4, 4
    for stage, depth in enumerate(depths):
        for i in range(depth):
            at = f'stages.{stage}.blocks.{i}.'
            narrows = stage > 0 and i == 0
            out, query_grid = (2 * width, grid // 2) if narrows else (width, grid)
            key_stride //= 2 if narrows and key_stride > 1 else 1
            yield from block(at, TIMM, width, 4 * out, out=out)
            if narrows:
                yield from linear(at + 'shortcut_proj_attn', out, width)
            for axis in 'hw':
                distances = 2 * max(query_grid, grid // key_stride) - 1
                yield Tensor(f'{at}attn.rel_pos_{axis}', (distances, head), EMBEDDING)
            for part in 'qkv':
                yield from conv(f'{at}attn.pool_{part}', head, 1, 3)
                yield from norm(f'{at}attn.norm_{part}', head)
            width, grid = out, query_grid
    yield from norm('norm', width)
    yield from linear('head.fc', classes, width)


def resnetv2(classes, layers, channels=(256, 512, 1024, 2048), stem=64):
    yield from resnet('', layers, channels, stem, preact=True)
    yield from norm('norm', channels[len(layers) - 1])
    yield from conv('head.fc', classes, channels[len(layers) - 1], 1, bias=True)


# Configurations: each returns the files of a folder by name, less the weights.

def transformers(model_type, architecture, preprocessor, config, labels):
    return {
        'config.json': {
            'architectures': [architecture], 'model_type': model_type, **config,
            'num_channels': 3, 'hidden_act': 'gelu', 'qkv_bias': True,
            'id2label': {str(i): label for i, label in enumerate(labels)},
            'label2id': {label: i for i, label in enumerate(labels)}},
        'preprocessor_config.json': {
            'do_resize': True, 'do_rescale': True, 'rescale_factor': 1 / 255, 'do_normalize': True, **preprocessor}}


def vit_config(labels, width, depth, heads):
    return transformers('vit', 'ViTForImageClassification', {
        'image_processor_type': 'ViTImageProcessor', 'size': {'height': 224, 'width': 224}, 'resample': 2,
        'image_mean': HALF['mean'], 'image_std': HALF['std'],
    }, {'hidden_size': width, 'num_hidden_layers': depth, 'num_attention_heads': heads, 'intermediate_size': 4 * width,
        'image_size': 224, 'patch_size': 16, 'layer_norm_eps': 1e-12}, labels)


def dinov2_config(labels, width, depth, heads):
    return transformers('dinov2', 'Dinov2ForImageClassification', {
        'image_processor_type': 'BitImageProcessor', 'size': {'shortest_edge': 256}, 'resample': 3,
        'do_center_crop': True, 'crop_size': {'height': 224, 'width': 224}, 'do_convert_rgb': True,
        'image_mean': IMAGENET['mean'], 'image_std': IMAGENET['std'],
    }, {'hidden_size': width, 'num_hidden_layers': depth, 'num_attention_heads': heads, 'mlp_ratio': 4,
        'image_size': 518, 'patch_size': 14, 'layer_norm_eps': 1e-6, 'layerscale_value': 1.0, 'use_swiglu_ffn': False,
        'apply_layernorm': True, 'reshape_hidden_states': True}, labels)


def swin_config(labels):
    return transformers('swin', 'SwinForImageClassification', {
        'image_processor_type': 'ViTImageProcessor', 'size': {'height': 224, 'width': 224}, 'resample': 3,
        'image_mean': IMAGENET['mean'], 'image_std': IMAGENET['std'],
    }, {'embed_dim': 96, 'depths': [2, 2, 6, 2], 'num_heads': [3, 6, 12, 24], 'num_layers': 4, 'hidden_size': 768,
        'window_size': 7, 'mlp_ratio': 4.0, 'image_size': 224, 'patch_size': 4, 'layer_norm_eps': 1e-5,
        'use_absolute_embeddings': False, 'path_norm': True, 'encoder_stride': 32}, labels)


def clip_tokens():
    """Made-up merges of one to four letters, as many as CLIP has, and the vocabulary that goes with them."""
    letters = 'etaoinshrdlucmfwypvbgkjqxz'
    own = [chr(byte) for byte in (*range(33, 127), *range(161, 173), *range(174, 256))]
    symbols = own + [chr(256 + i) for i in range(256 - len(own))]
    tokens = symbols + [symbol + '</w>' for symbol in symbols]
    merges = []
    for size in 2, 3, 4:
        for first in itertools.product(letters, repeat=size - 1):
            for last in letters:
                for end in '', '</w>':
                    if len(tokens) + len(merges) + 2 < CLIP_VOCABULARY:
                        merges.append((''.join(first), last + end))
    tokens += [left + right for left, right in merges] + ['<|startoftext|>', '<|endoftext|>']
    return {token: i for i, token in enumerate(tokens)}, merges


def clip_config(labels, image, text, embedding):
    vocabulary, merges = clip_tokens()
    width, depth, patch = image
    return {
        'config.json': {
            'architectures': ['CLIPModel'], 'model_type': 'clip', 'projection_dim': embedding,
            'text_config': {'hidden_size': text[0], 'intermediate_size': 4 * text[0],
                            'num_attention_heads': text[0] // 64, 'num_hidden_layers': text[1]},
            'vision_config': {'hidden_size': width, 'intermediate_size': 4 * width, 'num_attention_heads': width // 64,
                              'num_hidden_layers': depth, 'patch_size': patch}},
        'preprocessor_config.json': {
            'crop_size': 224, 'do_center_crop': True, 'do_normalize': True, 'do_resize': True,
            'feature_extractor_type': 'CLIPFeatureExtractor', 'resample': 3, 'size': 224,
            'image_mean': [0.48145466, 0.4578275, 0.40821073], 'image_std': [0.26862954, 0.26130258, 0.27577711]},
        'vocab.json': vocabulary,
        'merges.txt': ['#version: 0.2', *(' '.join(merge) for merge in merges)]}


def timm_config(labels, architecture, features, pool, pixels, crop_pct=.9):
    return {'config.json': {
        'architecture': architecture, 'num_classes': len(labels), 'num_features': features, 'global_pool': pool,
        'pretrained_cfg': {'input_size': [3, 224, 224], 'interpolation': 'bicubic', 'crop_pct': crop_pct,
                           'crop_mode': 'center', **pixels, 'num_classes': len(labels), 'label_names': labels}}}


Model = namedtuple('Model', 'tensors sizes config arguments')


def plain(width, depth, heads):
    return Model(vit, {'width': width, 'depth': depth}, vit_config, (width, depth, heads))


def two_towers(*sizes):
    return Model(clip, dict(zip(('image', 'text', 'embedding'), sizes)), clip_config, sizes)


def timm(tensors, sizes, *arguments):
    return Model(tensors, sizes, timm_config, arguments)


MODELS = {
    'vit-ti': plain(192, 12, 3),
    'vit-s': plain(384, 12, 6),
    'vit-b': plain(768, 12, 12),
    'vit-l': plain(1024, 24, 16),
    'clip-vit-b32': two_towers((768, 12, 32), (512, 12), 512),
    'clip-vit-l14': two_towers((1024, 24, 14), (768, 12), 768),
    'dinov2-s': Model(dinov2, {'width': 384, 'depth': 12, 'patch': 14, 'image': 518}, dinov2_config, (384, 12, 6)),
    'swin-t': Model(swin, {'layout': SWIN_HF}, swin_config, ()),
    'swin-t-timm': timm(swin, {'layout': SWIN_TIMM}, 'swin_tiny_patch4_window7_224', 768, 'avg', IMAGENET),
    'mvitv2-t': timm(mvitv2, {}, 'mvitv2_tiny', 768, 'avg', IMAGENET),
    't2t-vit-14': timm(t2t_vit, {'width': 384, 'depth': 14, 'performer': True}, 't2t_vit_14', 384, 'token', IMAGENET),
    't2t-vit-t-14': timm(t2t_vit, {'width': 384, 'depth': 14, 'performer': False}, 't2t_vit_t_14', 384, 'token',
                         IMAGENET),
    'deepvit-s': timm(deepvit, {'width': 396, 'depth': 16, 'heads': 12, 'reattention': 5}, 'deepvit_S', 396, 'token',
                      HALF),
    'r26-vit-s': timm(hybrid, {'width': 384, 'depth': 12, 'layers': (2, 2, 2, 2), 'grid': 7}, 'vit_small_r26_s32_224',
                      384, 'token', HALF),
    'r50-vit-b': timm(hybrid, {'width': 768, 'depth': 12, 'layers': (3, 4, 9)}, 'vit_base_r50_s16_224', 768, 'token',
                      HALF),
    'resnetv2-50': timm(resnetv2, {'layers': (3, 4, 6, 3)}, 'resnetv2_50x1_bit', 2048, 'avg', HALF, .875),
}


def noise_writer(file):
    """Returns write(fill, count), which takes its floats from one block, scaled once for each fill and cycled."""
    source = random.Random(0)
    unit = [2 * source.random() - 1 for _ in range(NOISE_FLOATS)]
    scaled, at = {}, 0

    def write(fill, count):
        nonlocal at
        if fill not in scaled:
            scaled[fill] = memoryview(array('f', [fill.centre + fill.spread * x for x in unit]))
        while count:
            floats = scaled[fill][at:at + count]
            file.write(floats)
            at = (at + len(floats)) % NOISE_FLOATS
            count -= len(floats)
    return write


def write_safetensors(path, tensors):
    tensors = sorted(tensors, key=lambda tensor: isinstance(tensor.fill, Noise))  # int64 first, for its alignment
    header, offset = {'__metadata__': {'format': 'pt'}}, 0
    for name, shape, fill in tensors:
        dtype, size = ('F32', 4) if isinstance(fill, Noise) else ('I64', 8)
        end = offset + size * math.prod(shape)
        header[name] = {'dtype': dtype, 'shape': shape, 'data_offsets': [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as file:
        file.write(struct.pack('<Q', len(text)) + text)
        write_noise = noise_writer(file)
        for _, shape, fill in tensors:
            if isinstance(fill, Noise):
                write_noise(fill, math.prod(shape))
            else:
                file.write(fill)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('name', choices=MODELS)
    parser.add_argument('folder')
    parser.add_argument('--classes', type=int, default=1000)
    options = parser.parse_args()

    model = MODELS[options.name]
    tensors = list(model.tensors(classes=options.classes, **model.sizes))
    labels = [f'class {i}' for i in range(options.classes)]
    os.makedirs(options.folder, exist_ok=True)
    write_safetensors(os.path.join(options.folder, 'model.safetensors'), tensors)
    for name, content in model.config(labels, *model.arguments).items():
        with open(os.path.join(options.folder, name), 'w') as file:
            if isinstance(content, list):
                file.writelines(line + '\n' for line in content)
            else:
                json.dump(content, file, indent=1)
    parameters = sum(math.prod(tensor.shape) for tensor in tensors if tensor.name.split('.')[-1] not in BUFFERS)
    print(f'{options.name}: {parameters:,} parameters in {options.folder}')


if __name__ == '__main__':
    main()
