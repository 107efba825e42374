"""Any trainer's file, to any program and into a concept."""

import io
import itertools

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save, save_file

from helpers.common.errors import UserError
from helpers.concept import all_concepts, concept_table, read_rows, rename_concept
from helpers.concept.concept import Concept
from helpers.concept.embedding import save_result, save_rows, step_path
from helpers.export import __main__ as command
from helpers.export import formats
from helpers.export.files import MADE_WITH, convert, download_links, export_for, import_word
from helpers.export.formats import PROGRAMS, SUFFIXES, prompt_for, read_back, read_word
from helpers.export.web_ui import WebUI, start_command, web_ui_at

L, H, G, T5 = (torch.randn(2, width) for width in (768, 1024, 1280, 4096))
FAMILIES = {"sd1": {"clip_l": L}, "sd2": {"clip_h": H}, "sdxl": {"clip_l": L, "clip_g": G}}
PARAM = torch.nn.ParameterDict({"*": torch.nn.Parameter(L)})


def pickled(content):
    packed = io.BytesIO()
    torch.save(content, packed)
    return packed.getvalue()


def a1111(rows, **more):
    return {"string_to_token": {"*": 265}, "string_to_param": {"*": rows}, "name": "cat", **more}


# Who writes it: the file's ending, its content, and what is in it.
WRITTEN = {
    "diffusers": ("safetensors", save({"<cat>": L}), {"clip_l": L}),
    "diffusers, one row": ("bin", pickled({"<cat>": L[0]}), {"clip_l": L[:1]}),
    "diffusers, a tensor alone": ("bin", pickled(L), {"clip_l": L}),
    "diffusers, 2.x": ("bin", pickled({"<cat>": H}), {"clip_h": H}),
    "AUTOMATIC1111": ("pt", pickled(a1111(L, step=500, sd_checkpoint_name="v1-5")), {"clip_l": L}),
    "AUTOMATIC1111 of 2022": ("pt", pickled({"string_to_param": PARAM, "name": "cat"}), {"clip_l": L}),
    "AUTOMATIC1111, picture": ("png", formats.word_picture(a1111(L), L), {"clip_l": L}),
    "kohya": ("safetensors", save({"emb_params": L}), {"clip_l": L}),
    "kohya, XL": ("safetensors", save({"clip_l": L, "clip_g": G}), FAMILIES["sdxl"]),
    "ComfyUI, 2.x": ("safetensors", save({"clip_h": H}), {"clip_h": H}),
    "ComfyUI, list": ("pt", pickled([{"a": L[:1]}, {"a": L[1:]}]), {"clip_l": L}),
    "ComfyUI, bundle": ("safetensors", save({"bundle_emb.cat.clip_l": L}), {"clip_l": L}),
    "bundle of a plain word": ("safetensors", save({"bundle_emb.cat.string_to_param.*": L}), {"clip_l": L}),
    "OneTrainer": ("safetensors", save({"emp_params": L, "emp_params_out": L + 1}), {"clip_l": L}),
    "OneTrainer, SD3": (
        "safetensors",
        save({"clip_l": L, "clip_g": G, "t5": T5, "t5_out": T5 + 1}),
        {"clip_l": L, "clip_g": G, "t5xxl": T5},
    ),
    "bfloat16": ("safetensors", save({"emb_params": L.bfloat16()}), {"clip_l": L.bfloat16()}),
    "float16": ("safetensors", save({"emb_params": L.half()}), {"clip_l": L.half()}),
}


@pytest.mark.parametrize("who", WRITTEN)
def test_what_any_trainer_writes_is_read(who, tmp_path):
    suffix, content, rows = WRITTEN[who]
    (tmp_path / f"cat.{suffix}").write_bytes(content)
    found = read_word(tmp_path / f"cat.{suffix}")
    assert found.rows.keys() == rows.keys()
    assert all(torch.equal(found.rows[name], own) for name, own in rows.items())


def test_what_a_file_says_of_itself_is_told(tmp_path):
    (tmp_path / "a.pt").write_bytes(WRITTEN["AUTOMATIC1111"][1])
    assert "Stable Diffusion 1.x: clip_l 2 x 768, norm" in str(read_word(tmp_path / "a.pt"))
    assert "taught to v1-5; for 500 steps" in str(read_word(tmp_path / "a.pt"))
    (tmp_path / "b.safetensors").write_bytes(WRITTEN["OneTrainer"][1])
    assert "left out: emp_params_out" in str(read_word(tmp_path / "b.safetensors"))


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"<a>": L, "<b>": L + 1}, "several words"),
        ({"bundle_emb.a.clip_l": L, "bundle_emb.b.clip_l": L + 1}, "2 words"),
        ({"lora.weight": L[None]}, "holds no rows"),
        (
            {f"unet.{n}.lora_A.weight": L + n for n in range(200)},
            r"\(unet\S* and 199 more\), or is no word's",
        ),
        ({"clip_l": L, "clip_g": L + 1}, "its clip_g has the width of clip_l"),
        ({}, "holds no rows"),
    ],
)
def test_files_of_something_else_are_named(tensors, sentence, tmp_path):
    save_file(tensors, tmp_path / "cat.safetensors")
    with pytest.raises(UserError, match=sentence):
        read_word(tmp_path / "cat.safetensors")


@pytest.mark.parametrize("name", ["word.pt", "WORD.SAFETENSORS", "word"])
def test_a_file_is_read_by_what_is_in_it(name, tmp_path):
    (tmp_path / name).write_bytes(save({"<cat>": L.to(torch.float8_e4m3fn)}))
    assert read_word(tmp_path / name).rows["clip_l"].shape == L.shape


@pytest.mark.parametrize("rows", [L.to_sparse(), L.to("meta"), L.to(torch.complex64)])
def test_rows_that_are_no_table_of_numbers_are_refused(rows, tmp_path):
    torch.save({"<cat>": rows}, tmp_path / "cat.pt")
    with pytest.raises(UserError, match="holds no rows"):
        read_word(tmp_path / "cat.pt")


@pytest.mark.parametrize("typed", ["~nobody-of-this-name/cat.pt", "x" * 300, "zero\0byte", "/dev/zero", ""])
def test_a_path_without_a_file_is_one_sentence(typed, concepts):
    for act in (read_word, lambda path: import_word(path, "cat")):
        with pytest.raises(UserError, match=r"There is no file .*: give the path of one"):
            act(typed)
    for act in (web_ui_at, lambda path: start_command(WebUI("forge", concepts), path)):
        with pytest.raises(UserError, match=r"There is no (folder|checkpoint)|main folder"):
            act(typed)


def test_half_precision_that_would_be_infinite_is_refused(tmp_path, capsys):
    save_file({"<cat>": L * 1e6}, tmp_path / "cat.safetensors")
    given = [str(tmp_path / "cat.safetensors"), "--to", "comfyui", "--out", str(tmp_path / "new")]
    assert command.main([*given, "--half"]) == 1
    assert "too large for float16" in capsys.readouterr().err and not (tmp_path / "new").exists()
    assert command.main(given) == 0
    given[-1] = str(tmp_path / "cat.safetensors")
    assert command.main(given) == 1
    assert "Nothing can be written to" in capsys.readouterr().err


@pytest.mark.parametrize(("family", "program"), [*itertools.product(FAMILIES, PROGRAMS)])
def test_every_family_goes_to_every_program_by_every_kind(family, program, tmp_path):
    rows = FAMILIES[family]
    save_file(rows, tmp_path / "cat.safetensors")
    widths = [own.shape[1] for own in rows.values()]
    for kind in ("safetensors", "pt", "png"):
        if f".{kind}" not in SUFFIXES[program]:
            with pytest.raises(UserError, match=rf"reads no \.{kind}"):
                convert(tmp_path / "cat.safetensors", program, tmp_path / "out", kind=kind)
            continue
        path, said = convert(tmp_path / "cat.safetensors", program, tmp_path / "out", kind=kind)
        assert "Stable Diffusion" in said
        read = read_back(path, program, widths).rows
        assert all(torch.equal(one, own) for one, own in zip(read, rows.values(), strict=True))
        again = read_word(path).rows
        assert all(torch.equal(again[name], own) for name, own in rows.items())


def test_rows_for_t5_go_to_comfyui_alone_and_the_rest_says_so(tmp_path, capsys):
    save_file({"clip_l": L, "t5": T5}, tmp_path / "flux.safetensors")
    file, out = str(tmp_path / "flux.safetensors"), tmp_path / "out"
    assert command.main([file, "--to", "comfyui", "--out", str(out / "a")]) == 0
    with safe_open(out / "a" / "flux.safetensors", "pt") as written:
        assert {*written.keys()} == {"clip_l", "t5xxl"}
    assert command.main([file, "--to", "forge", "--out", str(out / "b")]) == 0
    assert "not for forge: t5xxl" in capsys.readouterr().out
    assert torch.equal(read_back(out / "b" / "flux.safetensors", "forge", [768]).rows[0], L)
    assert command.main([file, "--to", "forge", "--out", str(out / "b")]) == 1
    assert "already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "file"),
    [("nan", "nan_word"), ("AND", "and_word"), ("my toy v1.5", "my_toy_v1_5"), ("cat", "cat")],
)
def test_a_file_whose_name_is_no_word_is_named_anew_and_that_is_said(name, file, tmp_path):
    save_file({"emb_params": L}, tmp_path / f"{name}.safetensors")
    path, said = convert(tmp_path / f"{name}.safetensors", "comfyui", tmp_path / "out")
    assert path.stem == file and (f"named {file}" in said) == (file != name)


def test_rows_that_no_program_knows_are_not_passed_off_as_some_it_does(tmp_path):
    save_file({"qwen3_4b": torch.randn(2, 2560)}, tmp_path / "cat.safetensors")
    path, said = convert(tmp_path / "cat.safetensors", "comfyui", tmp_path / "out")
    assert "another kind of model: qwen3_4b 2 x 2560" in said and {*read_word(path).rows} == {"qwen3_4b"}
    with pytest.raises(UserError, match=r"for forge, which knows no such rows: .* qwen3_4b 2 x 2560"):
        convert(tmp_path / "cat.safetensors", "forge", tmp_path / "out")


@pytest.mark.parametrize("program", PROGRAMS)
def test_xl_s_two_tables_need_as_many_rows_but_in_comfyui(program, tmp_path):
    save_file({"clip_l": L, "clip_g": G[:1]}, tmp_path / "cat.safetensors")
    if program == "comfyui":
        convert(tmp_path / "cat.safetensors", program, tmp_path / "out")
        return
    with pytest.raises(UserError, match="rows for XL: both need the same number"):
        convert(tmp_path / "cat.safetensors", program, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tensor_alone_is_for_diffusers_which_has_to_be_told_the_word(tmp_path):
    torch.save(L, tmp_path / "cat.bin")
    assert read_word(tmp_path / "cat.bin").word is None
    assert read_back(tmp_path / "cat.bin", "diffusers", [768]).word is None
    with pytest.raises(UserError, match="a tensor without a key"):
        read_back(tmp_path / "cat.bin", "comfyui", [768])


def test_a_picture_without_a_word_says_so(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "black.png")
    (tmp_path / "torn.png").write_bytes(formats.word_picture(a1111(L), L)[:99])
    for name in ("black.png", "torn.png"):
        with pytest.raises(UserError, match="without a word"):
            read_word(tmp_path / name)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_word_from_elsewhere_becomes_a_concept(family, concepts, tmp_path):
    save_file(FAMILIES[family], tmp_path / "cat.safetensors")
    concept = import_word(tmp_path / "cat.safetensors", "my_cat")
    read = read_rows(Concept.load("my_cat"))
    assert all(torch.equal(one, own) for one, own in zip(read, FAMILIES[family].values(), strict=True))
    assert concept.placeholder_tokens == ["<my_cat>", "<my_cat>_1"]
    assert "learned elsewhere" in repr(concept_table()) and all_concepts()[0].state == "learned"
    exported = read_word(export_for(concept, "comfyui")).rows
    assert all(torch.equal(exported[key], own) for key, own in FAMILIES[family].items())
    assert import_word(tmp_path / "cat.safetensors", "my_cat") == concept, "once more is no conflict"
    save_file({"emb_params": L + 1}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="already"):
        import_word(tmp_path / "other.safetensors", "my_cat")


def test_rows_of_1_5_go_into_xl_s_first_encoder_on_request(concepts, tmp_path):
    save_file({"emb_params": L}, tmp_path / "cat.safetensors")
    concept = import_word(tmp_path / "cat.safetensors", "cat", into_xl=True)
    first, second = read_rows(concept)
    assert torch.equal(first, L) and not second.any() and second.shape == (2, 1280)
    assert "xl" in concept.base_model
    save_file({"emb_params": H}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="only rows of 1"):
        import_word(tmp_path / "other.safetensors", "other", into_xl=True)
    save_file({"t5xxl": T5}, tmp_path / "flux.safetensors")
    with pytest.raises(UserError, match="None of the models"):
        import_word(tmp_path / "flux.safetensors", "flux")
    assert [one.name for one in all_concepts()] == ["cat"]


@pytest.mark.parametrize(
    ("name", "file"),
    [("grooty", "grooty"), ("42", "42_word"), ("1e5", "1e5_word"), ("nan", "nan_word"), ("inf", "inf_word"),
     ("AND", "and_word"), ("a-BREAK", "a-break_word"), ("BREAKFAST", "BREAKFAST"), ("x42", "x42")],
)  # fmt: skip
def test_names_that_a_program_can_t_use_get_another_file(name, file, concepts):
    concept = Concept.make(name, vectors=2)
    save_result(concept, [L])
    assert export_for(concept, "comfyui").stem == file
    assert prompt_for(concept, "forge", f"a photo of <{name}>") == f"a photo of {file}"


def test_the_file_says_what_it_is_and_a_rename_goes_into_it(concepts):
    concept = Concept.make("Cat", initializer_token="kitten", vectors=2)
    concept.save()
    for step, rows in ((0, L + 1), (50, L)):
        save_rows(step_path(concept, step), concept, [rows])
    save_result(concept, [L])
    path = export_for(concept, "forge", licence="CC0")
    export_for(concept, "forge", kind="png")
    with safe_open(path, "pt") as file:
        assert file.metadata() == {
            "word": "<cat>",
            "initializer": "kitten",
            "base_model": "miniature",
            "steps": "50",
            "license": "CC0",
            "made_with": MADE_WITH,
        }
    pickle = torch.load(export_for(concept, "forge", kind="pt"), weights_only=True)
    assert (pickle["name"], pickle["step"], pickle["sd_checkpoint_name"]) == ("Cat", 50, "miniature")
    rename_concept("Cat", "Dog")
    dog = Concept.load("Dog")
    (renamed,) = [path for path in dog.export_folder.rglob("*") if path.is_file()]
    assert renamed.read_bytes() == export_for(dog, "forge", licence="CC0").read_bytes()


def test_every_exported_file_has_a_link_and_all_are_in_a_zip(concepts, monkeypatch):
    monkeypatch.chdir(concepts)
    concept = Concept.make("cat", vectors=2)
    save_result(concept, [L])
    for program in PROGRAMS:
        export_for(concept, program)
    links = download_links(concept).data
    for program in PROGRAMS:
        assert f'href="cat/export/{program}/cat.safetensors" download' in links
    assert 'href="cat/export/cat.zip"' in links and (concept.export_folder / "cat.zip").stat().st_size > 3000
    archive, exported = concept.export_folder / "cat.zip", export_for(concept, "forge")
    for path in (archive, exported):  # what a killed export left
        path.with_name(f"{path.name}.partial").write_bytes(b"PK")
    assert download_links(concept).data == links, "the zip is not in itself"


PROMPT = "a photo of <cat>, (on a beach:1.3). [<cat>]! sketch \\(ink\\)"
PASTED = {
    "automatic1111": "a photo of cat, (on a beach:1.3). (cat:0.909091)! sketch \\(ink\\)",
    "comfyui": "a photo of embedding:cat, (on a beach:1.3). (embedding:cat:0.909091)! sketch \\(ink\\)",
    "invokeai": "a photo of <cat>, (on a beach)1.3. (<cat>)0.909091! sketch \\(ink\\)",
}


@pytest.mark.parametrize("program", PASTED)
def test_a_prompt_carries_over_with_its_weights(program, concepts):
    assert prompt_for(Concept.make("cat"), program, PROMPT) == PASTED[program]


@pytest.mark.parametrize("sign", ".!;'\"")
def test_comfyui_gets_a_blank_where_it_would_drop_the_word(sign, concepts):
    pasted = prompt_for(Concept.make("cat"), "comfyui", f"{sign}<cat>{sign} on snow")
    assert f" embedding:cat {sign}" in pasted
