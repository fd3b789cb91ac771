"""HiS4MAE and SdAE: losses as the equations say, gradients where they belong, a teacher that only follows."""

import math

import numpy as np
import pytest
import torch

from vemseg.batch import Batch
from vemseg.models import build_encoder, build_objective
from vemseg.models.codebook import Codebook, perplexity
from vemseg.models.self_distilled import MeanTeacher, momentum_at
from vemseg.recipe import His4maeTable, SdaeTable

SIZES = {"fov": 20, "patch": 5, "dim": 16, "depth": 2, "heads": 2}
SIZES |= {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2}
PATCHES, SEEN = 16, 8


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def his4mae(**settings):
    """Return an objective that has seen its first batch."""
    objective = build_objective(His4maeTable(**SIZES, codes=12, **settings), 3)
    objective(images(8, seed=9), generator(1))
    return objective


def sdae(**settings):
    objective = build_objective(SdaeTable(**SIZES, **{"drop_path": 0.0, "mask_ratio": 0.75} | settings), 3)
    objective.begun.fill_(True)
    return objective


def images(n=2, seed=0):
    return Batch(torch.rand(n, 1, 1, 20, 20, generator=generator(seed)))


def apart(objective):
    """Move a teacher away from its student, so that a test would notice if they were mixed up."""
    with torch.no_grad():
        for parameter in objective.teacher.encoder.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator(parameter.numel())))
    return objective


def patch_of(image, i):
    y, x = 5 * (i // 4), 5 * (i % 4)
    return image[y : y + 5, x : x + 5].reshape(-1)


def order_of(seed, n):
    """Return the places of each sample in shuffled order: the first ones are seen."""
    return torch.rand(n, PATCHES, generator=generator(seed)).argsort(dim=1)


# HiS4MAE: equations 2 to 6, spelt out


def slow_his4mae(objective, batch, seed, sees, on):
    """Return equations 2, 3 and 4, one patch, token and code at a time, in float64."""
    order = order_of(seed, len(batch))
    model = objective.double()
    codes = [code.numpy() for code in model.codebook.codes.detach()]
    squares, quantised, aligned = [], [], []
    for b, image in enumerate(batch.images[:, 0, 0].double()):
        seen, hidden = order[b, :SEEN].tolist(), order[b, SEEN:].tolist()
        student = model.encoder.latent(image[None, None], order[b : b + 1, :SEEN]).detach()
        restore = order[b : b + 1].argsort(dim=1)
        pixels = model.decoder(student, restore)[0].detach()
        for i in hidden if on == "masked" else seen + hidden:
            squares.append(((pixels[i] - patch_of(image, i)) ** 2).mean().item())
        look = None if sees == "whole" else order[b : b + 1, :SEEN]
        teacher = model.teacher.encoder.latent(image[None, None], look)[0, 1:].detach()
        for place, i in enumerate(seen):
            z_tea = teacher[i if sees == "whole" else place].numpy()
            z_q = min(codes, key=lambda code: ((code - z_tea) ** 2).sum())
            z_stu = student[0, 1 + place].numpy()
            quantised.append(((z_tea - z_q) ** 2).mean())
            aligned.append(1 - z_q @ z_stu / math.sqrt((z_q @ z_q) * (z_stu @ z_stu)))
    return np.mean(squares), np.mean(quantised), np.mean(aligned)


@pytest.mark.parametrize("sees", ["whole", "visible"])
@pytest.mark.parametrize("on", ["masked", "all"])
def test_the_loss_of_his4mae_is_equations_2_to_5(sees, on):
    objective = apart(his4mae(teacher_sees=sees, loss_on=on, codebook=0.3, student=0.7))
    batch = images(3)
    found = {name: float(value.detach()) for name, value in objective(batch, generator(4)).items()}
    recon, tea, stu = slow_his4mae(objective, batch, 4, sees, on)
    assert found["reconstruction"] == pytest.approx(recon, rel=1e-5)
    assert found["codebook"] == pytest.approx(tea, rel=1e-5)
    assert found["student"] == pytest.approx(stu, rel=1e-4)
    assert found["loss"] == pytest.approx(recon + 0.3 * tea + 0.7 * stu, rel=1e-5)
    assert min(recon, tea, stu) > 1e-4


def gradients(objective, batch):
    objective.zero_grad()
    objective(batch, generator(4))["loss"].backward()
    parts = {"encoder": objective.encoder, "decoder": objective.decoder, "codebook": objective.codebook}
    flat = {}
    for name, part in parts.items():
        given = [p.grad if p.grad is not None else torch.zeros_like(p) for p in part.parameters()]
        flat[name] = torch.cat([g.flatten() for g in given])
    assert all(p.grad is None for p in objective.teacher.parameters())
    return flat


def test_each_term_moves_only_what_it_should():
    """Gradients of the three terms, told apart by their weights."""
    weights = {"neither": (0.0, 0.0), "codebook": (2.0, 0.0), "student": (0.0, 2.0)}
    found = {}
    for name, (alpha, beta) in weights.items():
        found[name] = gradients(apart(his4mae(codebook=alpha, student=beta)), images(3))
    assert found["neither"]["encoder"].any()
    assert found["neither"]["decoder"].any()
    assert not found["neither"]["codebook"].any()
    assert torch.equal(found["codebook"]["encoder"], found["neither"]["encoder"])
    assert found["codebook"]["codebook"].any()
    assert (found["student"]["encoder"] - found["neither"]["encoder"]).abs().max() > 1e-3
    assert not found["student"]["codebook"].any()
    for name in ("codebook", "student"):
        assert torch.equal(found[name]["decoder"], found["neither"]["decoder"])


def test_a_code_is_drawn_to_the_mean_of_its_tokens():
    """The gradient of equation 3, by hand: 2 (code - token) / (tokens * dim), summed over its tokens."""
    book = Codebook(4, 3)
    tokens = torch.randn(10, 3, generator=generator())
    book.begin(tokens, generator(1))
    usage, chosen = book(tokens + 0.1)
    index = book.nearest(tokens + 0.1)
    torch.nn.functional.mse_loss(chosen, tokens + 0.1).backward()
    expected = torch.zeros(4, 3)
    for token, code in zip(tokens + 0.1, index.tolist(), strict=True):
        expected[code] += 2 * (book.codes[code].detach() - token) / 30
    torch.testing.assert_close(book.codes.grad, expected)
    assert usage.tolist() == book.usage.tolist() == [index.tolist().count(code) for code in range(4)]


def test_the_decoder_gets_the_students_tokens_not_the_codes():
    objective = apart(his4mae())
    batch = images(3)
    before = objective(batch, generator(4))["reconstruction"]
    with torch.no_grad():
        objective.codebook.codes.mul_(-3)
    assert torch.equal(objective(batch, generator(4))["reconstruction"], before)


@pytest.mark.parametrize("sees", ["whole", "visible"])
def test_what_the_teacher_sees(sees):
    """Change one hidden patch: only a teacher that sees the whole field of view notices."""
    objective = apart(his4mae(teacher_sees=sees))
    batch = images(1)
    order = order_of(4, 1)
    before = objective._targets(batch.images[:, :, 0], order[:, :SEEN])
    assert before.shape == (1, SEEN, 16)
    y, x = divmod(int(order[0, SEEN]), 4)
    batch.images[0, 0, 0, 5 * y : 5 * y + 5, 5 * x : 5 * x + 5] += 0.5
    after = objective._targets(batch.images[:, :, 0], order[:, :SEEN])
    assert torch.equal(before, after) == (sees == "visible")


# The codebook


def test_codes_begin_as_teacher_tokens_of_the_first_batch():
    objective = build_objective(His4maeTable(**SIZES, codes=12), 3)
    batch = images(4)
    objective(batch, generator(1))
    order = order_of(1, 4)[:, :SEEN]
    tokens = objective.teacher.tokens(batch.images[:, :, 0]).gather(1, order[..., None].expand(-1, -1, 16))
    between = objective.codebook.codes.detach()[:, None] - tokens.flatten(0, 1)
    assert between.square().sum(dim=-1).min(dim=1).values.max() < 1e-9
    assert len(objective.codebook.codes.unique(dim=0)) == 12
    kept = objective.codebook.codes.detach().clone()
    objective(images(4, seed=5), generator(2))
    assert torch.equal(objective.codebook.codes, kept)


def test_codes_repeat_where_tokens_are_fewer():
    book = Codebook(7, 2)
    book.begin(torch.arange(6.0).reshape(3, 2), generator())
    rows, counts = book.codes.detach().unique(dim=0, return_counts=True)
    assert len(rows) == 3
    assert sorted(counts.tolist()) == [2, 2, 3]


def test_isolated_codes_are_pulled_as_equation_6_says():
    book = Codebook(4, 2)
    with torch.no_grad():
        book.codes.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [50.0, 50.0], [-70.0, 20.0]]))
    before = book.codes.detach().clone()
    book.usage.copy_(torch.tensor([6, 0, 0, 0]))
    book.revive(0.8, 0.0, generator())
    expected = [[0, 0], [0.2, 0], [10, 10], [-14, 4]]  # 0.8 of code 0 and 0.2 of themselves
    torch.testing.assert_close(book.codes.detach(), torch.tensor(expected, dtype=torch.float32))
    assert torch.equal(book.codes[0], before[0])
    assert book.isolated == 3
    assert not book.usage.any()


def test_partners_are_drawn_by_their_usage_and_never_isolated():
    book = Codebook(2002, 1)
    with torch.no_grad():
        book.codes.copy_(torch.arange(2002.0)[:, None])
    book.usage[0], book.usage[1], book.usage[2] = 300, 100, 1
    book.revive(0.5, 0.01, generator())  # the third is isolated too: a hundredth of the mean usage is 0.002
    found = 2 * book.codes.detach()[3:, 0] - torch.arange(3.0, 2002.0)
    assert set(found.tolist()) == {0.0, 1.0, 2.0}
    share = [(found == code).float().mean().item() for code in range(3)]
    assert share == pytest.approx([300 / 401, 100 / 401, 1 / 401], abs=0.03)


def test_an_isolated_code_is_no_partner_however_much_it_is_used():
    book = Codebook(101, 1)
    with torch.no_grad():
        book.codes.copy_(torch.arange(101.0)[:, None])
    book.usage.fill_(30)
    book.usage[0] = 100
    book.revive(1.0, 0.99, generator())  # all but the first are below the mean
    assert book.isolated == 100
    assert not book.codes.any()


def test_revival_lowers_the_number_of_unused_codes():
    """Tokens form two blobs, and all codes but one are far from both; with revival most come into use."""
    tokens = torch.randn(600, 4, generator=generator())
    tokens[300:] += 12
    unused = {}
    for revived in (False, True):
        book = Codebook(40, 4)
        with torch.no_grad():
            book.codes.copy_(100 + torch.randn(40, 4, generator=generator(1)))
            book.codes[0] = tokens[0]
        optimiser = torch.optim.Adam([book.codes], lr=0.1)
        for _ in range(12):
            for _ in range(5):
                optimiser.zero_grad()
                _, chosen = book(tokens)
                torch.nn.functional.mse_loss(chosen, tokens).backward()
                optimiser.step()
            last = book.usage.clone()
            if revived:
                book.revive(0.8, 0.0, generator(2))
            else:
                book.usage.zero_()
        unused[revived] = int((last == 0).sum())

    assert unused[False] >= 30
    assert unused[True] <= 10


def test_a_codebook_in_full_use_or_none_stays_as_it_is():
    book = Codebook(3, 2)
    before = torch.randn(3, 2, generator=generator())
    for usage in ([1, 2, 3], [0, 0, 0]):
        with torch.no_grad():
            book.codes.copy_(before)
        book.usage.copy_(torch.tensor(usage))
        book.revive(0.8, 0.0, generator())
        assert torch.equal(book.codes.detach(), before)


def test_perplexity_counts_codes_used_alike():
    assert perplexity(torch.tensor([5, 0, 5, 5, 5])).item() == pytest.approx(4)
    assert perplexity(torch.tensor([0, 7])).item() == pytest.approx(1)
    assert perplexity(torch.tensor([1, 3])).item() == pytest.approx(
        math.exp(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
    )


def test_revival_comes_at_the_end_of_an_epoch():
    objective = his4mae(epoch=20)  # 8 samples seen
    objective.seen.fill_(0)
    told = []
    objective.codebook.revive = lambda *given: told.append(given[:2])
    for _ in range(7):
        objective(images(8), generator(2))
        objective.after_step(0.5, generator(3))
    assert told == [(0.8, 0.0)] * 2  # after 24 and 48 samples: the last batch of an epoch is whole


# The teacher


def test_the_teacher_begins_as_the_student_it_is_given():
    """This holds even if the student is loaded after it was built, as ``train --from`` does."""
    objective = build_objective(His4maeTable(**SIZES, codes=4), 3)
    torch.manual_seed(77)
    objective.encoder.load_state_dict(build_encoder(objective.settings).state_dict())
    objective(images(), generator())
    ours, theirs = objective.encoder.state_dict(), objective.teacher.encoder.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_teacher_is_the_running_mean_of_the_student():
    objective = his4mae(momentum=(0.9, 0.99))
    mean = {name: p.detach().clone() for name, p in objective.teacher.encoder.named_parameters()}
    for step in range(5):
        with torch.no_grad():
            for parameter in objective.encoder.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(step)))
        objective.after_step(step / 5, generator())
        momentum = 0.99 - 0.09 * (1 + math.cos(math.pi * step / 5)) / 2
        for name, parameter in objective.encoder.named_parameters():
            mean[name] = momentum * mean[name] + (1 - momentum) * parameter.detach()
    for name, parameter in objective.teacher.encoder.named_parameters():
        torch.testing.assert_close(parameter.detach(), mean[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("fraction", "momentum"), [(0.0, 0.996), (0.5, 0.998), (1.0, 1.0)])
def test_momentum_rises_by_half_a_cosine(fraction, momentum):
    assert momentum_at(His4maeTable(**SIZES), fraction) == pytest.approx(momentum)


def test_a_teacher_by_epochs_waits_for_their_end():
    objective = sdae(epoch=6, momentum=(0.5, 0.5))
    before = objective.teacher.mean.clone()
    for step in range(3):
        with torch.no_grad():
            objective.encoder.cls_token.add_(1.0)
        objective(images(2), generator())
        objective.after_step(0.0, generator())
        assert torch.equal(objective.teacher.mean, before) == (step < 2)


def test_small_steps_of_a_teacher_in_bfloat16_are_not_lost():
    objective = his4mae(momentum=(0.999, 0.999)).to(torch.bfloat16)
    assert objective.teacher.mean.dtype == objective.codebook.codes.dtype == torch.float32
    assert objective.teacher.encoder.cls_token.dtype == objective.encoder.cls_token.dtype == torch.bfloat16
    with torch.no_grad():
        for parameter in objective.encoder.parameters():
            parameter.fill_(1.0)
    start = objective.teacher.mean.clone()
    for _ in range(500):
        objective.after_step(0.0, generator())
    torch.testing.assert_close(objective.teacher.mean, 1 - (1 - start) * 0.999**500, rtol=1e-4, atol=1e-4)
    flat = torch.cat([p.detach().flatten() for p in objective.teacher.encoder.parameters()])
    torch.testing.assert_close(flat, objective.teacher.mean.to(torch.bfloat16))


def test_a_teacher_is_never_in_training_mode():
    teacher = MeanTeacher(His4maeTable(**SIZES)).train()
    assert not any(module.training for module in teacher.modules())
    assert not teacher.tokens(torch.rand(1, 1, 20, 20)).requires_grad


# SdAE


def test_the_loss_of_sdae_spelt_out():
    objective = apart(sdae(folds=3, pixels=0.5))
    batch = images(3)
    found = objective(batch, generator(4))
    order, cosines, squares = order_of(4, 3), [], []
    for b, image in enumerate(batch.images[:, 0, 0]):
        seen, hidden = order[b : b + 1, :4], order[b : b + 1, 4:]
        latent = objective.encoder.latent(image[None, None], seen).detach()
        restore = order[b : b + 1].argsort(dim=1)
        predicted = objective.predictor(latent, restore)[0].detach()
        pixels = objective.decoder(latent, restore)[0].detach()
        for part in hidden.chunk(3, dim=1):
            teacher = objective.teacher.encoder.latent(image[None, None], part)[0, 1:].detach()
            for i, token in zip(part[0].tolist(), teacher, strict=True):
                target = (token - token.mean()) / token.std(unbiased=False)
                cosines.append(torch.nn.functional.cosine_similarity(predicted[i], target, dim=0).item())
                squares.append(((pixels[i] - patch_of(image, i)) ** 2).mean().item())
    assert len(cosines) == 3 * 12
    assert float(found["distillation"]) == pytest.approx(1 - np.mean(cosines), rel=1e-4)
    assert float(found["reconstruction"]) == pytest.approx(np.mean(squares), rel=1e-5)
    assert float(found["loss"].detach()) == pytest.approx(
        1 - np.mean(cosines) + 0.5 * np.mean(squares), rel=1e-4
    )


def test_masked_patches_are_divided_into_as_many_folds_as_asked():
    objective = sdae(folds=5)
    seen, tokens = [], objective.teacher.tokens
    objective.teacher.tokens = lambda images, part: seen.append(part.shape[1]) or tokens(images, part)
    objective(images(1), generator())
    assert seen == [3, 3, 2, 2, 2]


def test_the_teacher_of_sdae_sees_one_fold_of_what_is_masked_at_a_time():
    objective = apart(sdae(folds=3))
    batch = images(1)
    masking = objective.hide(batch.images[:, :, 0], generator(4))
    before = objective.targets(batch.images[:, :, 0], masking)
    for place in range(PATCHES):
        changed = batch.images.clone()
        y, x = divmod(place, 4)
        changed[0, 0, 0, 5 * y : 5 * y + 5, 5 * x : 5 * x + 5] += 0.5
        moved = (objective.targets(changed[:, :, 0], masking) != before).any(dim=-1)[0].reshape(3, 4)
        hidden = masking.hidden[0].reshape(3, 4)
        expected = (hidden == place).any(dim=1, keepdim=True).expand(3, 4)
        assert torch.equal(moved, expected)
    assert before.mean(dim=-1).abs().max() < 1e-5
    assert (before.var(dim=-1, unbiased=False) - 1).abs().max() < 1e-2


def test_gradients_of_sdae_stop_at_the_teacher():
    objective = sdae()
    objective(images(), generator())["loss"].backward()
    assert all(p.grad is None for p in objective.teacher.parameters())
    for part in (objective.encoder, objective.decoder, objective.predictor):
        assert all(p.grad is not None for p in part.parameters())


def test_plain_sdae_has_no_decoder_of_pixels():
    objective = sdae(pixels=0.0)
    assert not hasattr(objective, "decoder")
    assert set(objective(images(), generator())) == {"loss", "distillation"}
    assert objective.preview(images(), generator()) is None
    assert sdae().preview(images(), generator()) is not None


def test_stochastic_depth_repeats_and_spares_the_teacher():
    objective = sdae(drop_path=0.9)
    rates = [
        block.drop_path1.drop_prob if hasattr(block.drop_path1, "drop_prob") else 0.0
        for block in objective.encoder.blocks
    ]
    assert rates == pytest.approx([0.0, 0.9])
    batch = images(6)
    losses = [float(objective(batch, generator(seed))["loss"].detach()) for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    objective.eval()
    kept = objective.encoder.latent(batch.images[:, :, 0])
    assert torch.equal(kept, objective.encoder.latent(batch.images[:, :, 0]))
    objective.train()
    assert not torch.equal(kept, objective.encoder.latent(batch.images[:, :, 0]))
    assert torch.equal(
        objective.teacher.tokens(batch.images[:, :, 0]), objective.teacher.tokens(batch.images[:, :, 0])
    )
